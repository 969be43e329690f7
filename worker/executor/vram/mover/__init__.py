"""The program that asks the CUDA driver to move one process's VRAM. Standard library only, started by its path."""
