"""The view of jobs: asked for by a form, watched to the end, cancelled, queued again; errors in full."""

import re

import pytest
from cases_page import HOSTILE, NARROW, WIDE, Open, Service, sound
from playwright.sync_api import expect

from interbasis.service.store.store import Store


def test_a_job_is_asked_for_by_the_form_and_watched_to_its_end(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/jobs?task=partition&target={service.graph}", refused=(422,))
    expect(page.get_by_label("Target")).to_have_value(service.graph)
    expect(page.get_by_text("Number of modules, with objective kway.")).to_be_visible()
    page.get_by_label("objective", exact=True).select_option("kway")
    k = page.get_by_label("k", exact=True)
    k.fill("many")
    page.get_by_role("button", name="Ask for this job").click()
    expect(page.get_by_role("alert")).to_have_text("partition: k is 'many', expected a whole number of at least 1")
    expect(k).to_be_focused()
    expect(k).to_have_attribute("aria-invalid", "true")
    k.fill("2")
    page.get_by_label("max size").fill("5000")
    k.press("Enter")
    expect(page).to_have_url(re.compile("#/jobs/j-"))
    expect(page.get_by_role("heading", name=f"partition of {HOSTILE}@2")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("succeeded", timeout=120_000)
    expect(page.get_by_text("5000")).to_be_visible()
    page.get_by_role("link", name=re.compile("^partition p-")).click()
    expect(page.get_by_label("Division")).to_contain_text("kway")


def test_jobs_are_cancelled_and_queued_again_while_one_looks(service: Service, visit: Open) -> None:
    with Store.open(service.store) as store:
        job = store.submit("partition", service.graph, {"resolution": 3.0}, queue="nobody")
    page = visit(f"{service.url}#/jobs")
    page.get_by_role("button", name=f"Cancel {job.id}").click()
    row = page.get_by_role("region", name="Ended").get_by_role("row").filter(has_text=job.id)
    expect(row).to_contain_text("cancelled")
    expect(row).to_contain_text(HOSTILE)
    row.get_by_role("button", name=f"Retry {job.id}").press("Enter")
    waiting = page.get_by_role("region", name="Waiting and running")
    expect(waiting).to_contain_text(job.id)
    home = visit(service.url)
    expect(home.get_by_role("region", name="Jobs")).to_contain_text(job.id)
    waiting.get_by_role("row").filter(has_text=job.id).get_by_role("link").click()
    expect(page.get_by_role("status")).to_have_text("queued")
    with Store.open(service.store) as store:
        store.cancel_job(job.id)  # and both pages notice
    expect(page.get_by_role("status")).to_have_text("cancelled")
    expect(page.get_by_role("button", name=f"Retry {job.id}")).to_be_visible()
    expect(home.get_by_text(job.id)).to_have_count(0)
    page.get_by_role("link", name="All jobs").click()
    page.get_by_label("State").select_option("failed")
    expect(page).to_have_url(re.compile("state=failed"))
    expect(page.get_by_text(job.id)).to_have_count(0)


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_forms_and_errors_are_sound(service: Service, visit: Open, size: dict[str, int], scheme: str) -> None:
    with Store.open(service.store) as store:
        job = store.submit("partition", service.graph, {"min_size": 10**6})  # cannot be done
    page = visit(f"{service.url}#/jobs/{job.id}", viewport=size, color_scheme=scheme)
    expect(page.get_by_role("heading", name="Why it failed")).to_be_visible(timeout=120_000)
    expect(page.locator("pre")).to_contain_text("1000000")
    sound(page)
    page.goto(f"{service.url}#/jobs?task=llc")
    expect(page.get_by_role("rowheader", name="partition").first).to_be_visible()
    page.get_by_label("Task").select_option("analyze")
    expect(page.get_by_label("rotation")).to_contain_text("default: degenerate")
    expect(page.get_by_label("gap", exact=True)).to_have_attribute("placeholder", "0.25")
    sound(page)
