"""``python -m model_training`` is the command ``model-training``."""

from model_training.cli.main import main

if __name__ == "__main__":
    main()
