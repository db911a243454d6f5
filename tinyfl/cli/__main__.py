from tinyfl.cli import command

command()
