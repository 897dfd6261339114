"""What the command line does beyond a call of `mori`: the doctor. The commands are in `mori.__main__`."""
