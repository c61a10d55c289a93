"""Broken ONNX models by the thousand: classes of damage, seeded, each tried in a limited child process."""
