"""The version of this library, from which the distribution takes its own."""

VERSION = "0.2.0"
