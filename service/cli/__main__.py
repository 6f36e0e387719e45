"""`python -m interbasis.service.cli`, for processes that start commands."""

from .app import main

if __name__ == "__main__":
    main()
