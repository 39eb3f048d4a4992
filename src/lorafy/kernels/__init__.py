"""Fast versions of named operations. reference.py defines each in plain torch; compiled.py runs cpu/*.cpp."""
