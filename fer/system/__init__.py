"""What the machine asks for: whole files, devices, memory, several processes."""
