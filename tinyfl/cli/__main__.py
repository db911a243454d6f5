from tinyfl.cli import main

main()
