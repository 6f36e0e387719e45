"""The page in a real browser, Chromium without a window, over a real service with a worker."""

import re
from pathlib import Path

import pytest
from cases_page import HOSTILE, NARROW, WIDE, Open, Service, serve, sound, stop
from playwright.sync_api import expect

from interbasis.analysis.recipe import PartitionRecipe
from interbasis.service.store.store import Store
from interbasis.service.tasks.partitions import divide


def test_an_empty_store_says_what_to_do(tmp_path: Path, visit: Open) -> None:
    process, url = serve(tmp_path / "store.sqlite", "--workers", "0")
    page = visit(url)
    for command in ("interbasis demo", "interbasis analyze", "interbasis import"):
        expect(page.locator("pre", has_text=command)).to_be_visible()
    sound(page)
    page.close()
    stop(process)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_views_are_sound_at_every_width_and_in_both_schemes(
    service: Service, visit: Open, size: dict[str, int], scheme: str
) -> None:
    """Hostile names are shown as they are."""
    page = visit(service.url, viewport=size, color_scheme=scheme)
    expect(page.get_by_role("rowheader", name=HOSTILE).first).to_be_visible()
    sound(page)
    page.goto(f"{service.url}#/graph/{service.partition}")
    expect(page.get_by_role("link", name=f"module 0: {HOSTILE}0")).to_be_visible()
    sound(page)
    page.goto(f"{service.url}#/graph/{service.partition}?module=0&node=1/0")
    expect(page.get_by_role("heading", name=f"{HOSTILE}n")).to_be_visible()
    expect(page.get_by_text(f"{HOSTILE} (human)")).to_be_visible()
    sound(page)


def test_a_walk_from_the_table_to_a_node_and_back(service: Service, visit: Open) -> None:
    page = visit(service.url)
    field = page.get_by_role("searchbox", name="Find a name, ID or label")
    field.fill(service.partition)
    field.press("Enter")
    expect(page).to_have_url(f"{service.url}/#/graph/{service.partition}")
    status = page.get_by_role("status").first
    expect(status).to_contain_text("2 modules")
    picture = page.get_by_role("group", name=re.compile("Picture of 2 modules"))
    box = picture.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 70 / 836 * box["width"], box["y"] + box["height"] / 2)  # the disc at the left
    expect(page).to_have_url(re.compile("module="))
    expect(status).to_contain_text(re.compile(r"^\d+ of \d+ nodes, \d+ of \d+ edges"))
    page.get_by_role("searchbox", name="Find a node").fill("/ 1")
    page.locator(".panel .list a").first.click()
    expect(page.get_by_role("heading", name=re.compile("Strongest of"))).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Nodes by importance")).to_be_visible()
    page.go_back()
    expect(status).to_contain_text("Click a module")


def test_the_threshold_is_in_the_address_and_can_be_sent(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/graph/{service.partition}?all=1")
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    everything = page.get_by_role("status").first.inner_text()
    slider.press("End")
    expect(page).to_have_url(re.compile(r"above=[\d.e-]+"))
    few = page.get_by_role("status").first.inner_text()
    assert [int(re.findall(r"(\d+) of (\d+) edges?", text)[0][0]) for text in (few, everything)] == sorted(
        int(re.findall(r"(\d+) of (\d+) edges?", text)[0][0]) for text in (few, everything)
    )
    assert few != everything
    other = visit(page.url)
    expect(other.get_by_role("status").first).to_have_text(few)


def test_of_several_loss_scales_their_mean_is_said(service: Service, visit: Open) -> None:
    with Store.open(service.store) as store:
        graph = store.get_graph(service.graph)
        scales = tuple(1e-4 * 2**i for i in range(len(graph.cuts) - 1))
        made = divide(store, graph, PartitionRecipe(epsilon=scales, resolution=1.0)).id
    page = visit(f"{service.url}#/graph/{made}?all=1")
    slider = page.get_by_role("slider", name=re.compile("geometric mean of one loss scale per pair of cuts"))
    expect(slider).to_be_visible()
    slider.press("End")
    expect(page.get_by_role("slider", name=re.compile(r"= [\d.e-]+$"))).to_be_visible()
    page.goto(f"{service.url}#/graph/{made}")
    expect(page.locator(".panel dd", has_text="geometric mean")).to_contain_text("0.0001, 0.0002")
    page.goto(service.url)
    link = page.get_by_role("row").filter(has=page.get_by_role("cell", name="2", exact=True)).first.get_by_role("link")
    expect(link.first).to_have_attribute("href", f"#/graph/{service.partition}")  # as at the other step
    expect(page.locator("figcaption", has_text="Learning coefficient")).to_contain_text("ε 0.001")  # not 0.01


def test_labels_are_read_to_their_end(service: Service, visit: Open) -> None:
    page = visit(service.url)
    page.route("**/labels?limit=1000*", lambda route: route.continue_(url=route.request.url.replace("=1000", "=1")))
    page.goto(f"{service.url}#/graph/{service.partition}?module=0&node=1/0")
    expect(page.get_by_role("heading", name=f"{HOSTILE}n")).to_be_visible()
    expect(page.get_by_label("Shown")).to_contain_text(f"module 0: {HOSTILE}0")


def test_another_division_is_requested_and_opened(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/graph/{service.partition}")
    page.get_by_text("Another division of this graph").click()
    page.get_by_label("Resolution").fill("2.5")
    page.get_by_role("button", name="Divide again").click()
    opened = page.get_by_role("link", name=re.compile("^open p-"))
    expect(opened).to_be_visible(timeout=120_000)
    opened.click()
    expect(page).not_to_have_url(re.compile(service.partition))
    choice = page.get_by_label("Division")
    expect(choice).to_contain_text("resolution 2.5")
    choice.select_option(service.partition)
    expect(page).to_have_url(f"{service.url}/#/graph/{service.partition}")


def test_with_a_token_set_nothing_is_shown_without_a_valid_one(tmp_path: Path, visit: Open) -> None:
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        store.register_model("secret-model", "mlp", {})
        given = store.new_token("page", "read").token
    process, url = serve(tmp_path / "store.sqlite", "--workers", "0")
    page = visit(url, refused=(401,))
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    sound(page)
    field.fill("ib_wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown or revoked")
    assert "secret-model" not in page.content()
    page.get_by_label("Token", exact=True).fill(given)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    page.reload()  # the tab has kept it
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    page.goto(f"{url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    assert given not in page.url
    page.goto(f"{url}#/jobs")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status))
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        store.revoke_token(store.tokens().items[0].id)
    expect(page.get_by_label("Token", exact=True)).to_be_focused(timeout=30_000)  # at the next look at the queue
    expect(page.get_by_role("alert")).to_contain_text("unknown or revoked")
    page.wait_for_timeout(3000)
    assert answers.count(401) <= 3, "no further look"
    page.close()
    stop(process)


def test_the_api_is_described_without_another_host(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}/docs")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    expect(page.get_by_text("/api/v1/partitions/{ref}/drawing")).to_be_visible()


def test_what_is_not_there_is_said(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/nowhere")
    expect(page.get_by_role("alert")).to_contain_text("no such page")
