"""The version of this library, which is also that of the distribution."""

VERSION = "0.2.0"
