"""The command line: files here only parse; each verb calls one typed function."""
