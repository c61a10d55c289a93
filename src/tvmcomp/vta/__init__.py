"""The VTA accelerator: instruction set, assembler, simulator, static checker, cycle model, program builder."""
