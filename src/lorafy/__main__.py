"""`python -m lorafy`, for launchers such as `accelerate launch -m lorafy train RECIPE`."""

from .cli import main

if __name__ == "__main__":
    main()
