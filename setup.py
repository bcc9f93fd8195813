"""Ships the recipes as data of superb_eval; all else about the distribution stands in pyproject.toml.

In a checkout the recipes lie at the top, where people look for them. Under that name they can't be installed: `recipes`
is also a package of torchtune.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["superb_eval*", "upstreams*", "downstreams*"]), "superb_eval.recipes"],
    package_dir={"superb_eval.recipes": "recipes"},
)
