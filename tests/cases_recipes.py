"""The recipes behind the choices of each task."""

from typing import Any

from interbasis.analysis.circuits.experiments import ExperimentRecipe
from interbasis.analysis.recipe import (
    CompareRecipe,
    DescribeRecipe,
    GraphRecipe,
    ImportRecipe,
    LedgerRecipe,
    LlcRecipe,
    PartitionRecipe,
)

RECIPES: dict[str, tuple[Any, ...]] = {
    "analyze": (GraphRecipe, PartitionRecipe),
    "partition": (PartitionRecipe,),
    "track": (PartitionRecipe,),
    "experiment": (ExperimentRecipe,),
    "describe": (DescribeRecipe,),
    "compare": (CompareRecipe,),
    "import": (ImportRecipe,),
    "ledger": (LedgerRecipe,),
    "llc": (LlcRecipe,),
}
