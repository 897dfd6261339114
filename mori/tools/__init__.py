"""What users do with mori beside calling it: the command line and the doctor."""
