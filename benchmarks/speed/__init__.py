"""How fast each stage is: ours beside other packages in alternated rounds, and beside a measured roof."""
