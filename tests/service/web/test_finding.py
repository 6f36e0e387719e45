"""Names, IDs and labels are found; an imported attribution graph shows its labels and supernodes."""

import json
import re

import pytest
from cases_attribution import SMALL
from cases_page import HOSTILE, Open, Service, sound
from playwright.sync_api import expect

from interbasis.analysis.recipe import PartitionRecipe
from interbasis.service.api.edges import drawing
from interbasis.service.store.store import Store
from interbasis.service.tasks.exchange import import_graph
from interbasis.service.tasks.partitions import divide


@pytest.fixture(scope="module")
def imported(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A partition of an attribution graph with a supernode of two nodes."""
    document = json.loads(SMALL)
    document["qParams"]["supernodes"] = [[HOSTILE, "0_1_0", "2_7_1", "unknown"], "no list", ["alone"]]
    file = tmp_path_factory.mktemp("attribution") / "small.json"
    file.write_text(json.dumps(document))
    with Store.open(service.store) as store:
        graph = import_graph(store, file, {})
        partition = divide(store, graph, PartitionRecipe(objective="kway", k=2, resolution=1.0, nulls=4)).id
        (group,) = drawing(store, partition).supernodes
        shown = {(node.cut, node.coordinate): node.id for node in drawing(store, partition).nodes}
    assert (group.title, [shown[place] for place in group.nodes]) == (HOSTILE, ["0_1_0", "2_7_1"])
    return partition


def test_a_supernode_of_an_imported_graph_is_chosen(service: Service, imported: str, visit: Open) -> None:
    page = visit(f"{service.url}#/graph/{imported}?all=1")
    expect(page.get_by_role("link", name="<b>bold</b> & 'more'")).to_be_visible()
    page.get_by_label("Supernode of the file").select_option(f"{HOSTILE} (2)")
    expect(page).to_have_url(re.compile("group=0"))
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    expect(page.locator(".panel .list a")).to_have_count(2)
    sound(page)
    page.goto(f"{service.url}#/evidence/{imported}")
    expect(page.get_by_text("there is no network on which an experiment could run")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Supernode of the file")).to_have_value("0")


def test_labels_and_what_belongs_to_a_name_are_found(service: Service, visit: Open) -> None:
    page = visit(service.url)
    field = page.get_by_role("searchbox", name="Find a name, ID or label")
    field.press_sequentially(f"{HOSTILE}n")
    found = page.locator("#found")
    expect(found.get_by_role("link")).to_have_count(1)
    found.get_by_role("link").click()
    expect(page.get_by_role("heading", name=f"{HOSTILE}n")).to_be_visible()
    field.fill("no such thing")
    expect(found).to_contain_text("Nothing has this name.")
    field.press("Escape")
    expect(found.locator("li")).to_have_count(0)
