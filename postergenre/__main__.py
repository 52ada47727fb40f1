"""Run `python -m postergenre new FOLDER`."""

from postergenre.new import main

main()
