"""Any inventory survives a round trip, and anything else is an error with a path."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi.inventory_load import (
    InvalidInventoryError,
    inventory_from_json,
    load_inventory,
    to_yaml,
)
from tests.cdi.inventories import DEVICE, PART, SCHEMA, changed, inventory_values, texts


@given(inventory_values())
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_yaml_and_json_give_the_inventory_back(inventory):
    assert load_inventory(to_yaml(inventory)) == inventory
    assert load_inventory(json.dumps(inventory.to_json())) == inventory
    assert SCHEMA.is_valid(inventory.to_json())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *((*DEVICE, name) for name in ("vendor", "type", "index", "memory", "pci", "nodes", "major")),
    *((*PART, name) for name in ("type", "index", "gi", "memory", "nodes", "uuid")),
    *(("driver", name) for name in ("version", "root", "nodes", "links", "hook", "configs")),
    ("devices", 0, "attributes"),
    ("devices", 1, "partitions"),
    ("devices",),
    ("driver",),
    ("drivers",),
    ("node",),
]


@given(st.sampled_from(FIELDS), json_values)
@settings(max_examples=300, deadline=None)
def test_any_value_anywhere_is_an_inventory_or_an_error_with_paths(path, value):
    document = changed(path, value)
    inventory, faults = outcome(lambda: inventory_from_json(document))
    if inventory is None:
        assert faults
    else:
        assert inventory_from_json(inventory.to_json()) == inventory
        # An amount may fit the schema and be no whole number of bytes, but not the other way round.
        assert SCHEMA.is_valid(document)


@given(st.text(max_size=60) | st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_inventory_or_the_packages_own_error(text):
    inventory, faults = outcome(lambda: load_inventory(text))
    assert (inventory is None) == bool(faults)
    assert all("\n" not in str(fault) for fault in faults)


def outcome(load):
    """Return the inventory, or None and the faults; any other error passes through."""
    try:
        return load(), ()
    except InvalidInventoryError as error:
        return None, error.faults
