"""Names the packages; everything else is in pyproject.toml.

`training/` and `demo/` are folders of their own beside `igrpo_sdk/` and install as its subpackages, which
setuptools cannot find by itself.
"""

from setuptools import find_packages, setup

INSIDE = [f"igrpo_sdk.{name}" for name in find_packages(include=["training*", "demo*"])]

setup(packages=[*find_packages(include=["igrpo_sdk*"]), *INSIDE])
