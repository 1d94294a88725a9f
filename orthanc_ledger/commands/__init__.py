"""One module per subcommand: ``register(subparsers)`` describes it, ``run(args)`` does it and returns the exit code."""
