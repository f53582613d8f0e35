"""Every row of delivery.md section 9: what we do about it, and the tests that fail without it.

| failure | handling | tests |
|---|---|---|
| an exception in any librdkafka callback loses fetched messages | consumers/kafka.py::_guarded, producers/kafka.py::_tell, producers/client_log.py::ClientLog, consumers/runtime.py::_or_stop | tests/kafka_faults/test_owner.py::test_what_callbacks_raise_loses_no_record, tests/kafka_faults/test_owner.py::test_a_callback_with_a_fault_of_its_own_costs_a_rejoin_and_no_record, tests/kafka_faults/test_producer.py::test_what_callbacks_raise_costs_no_record_its_settlement, tests/kafka_faults/test_runtime.py::test_an_error_of_our_own_stops_the_subscription_and_passes_nothing_over |
| commit refused in a rebalance | consumers/kafka.py::_commit, consumers/assignment.py::admit | tests/kafka_faults/test_owner.py::test_a_commit_refused_in_a_rebalance_is_told_and_forgotten_and_never_sent_again, tests/kafka_faults/test_owner.py::test_partitions_lost_to_a_refused_commit_are_read_again_from_what_was_committed, tests/kafka_faults/test_owner.py::test_a_commit_refused_when_leaving_costs_only_a_repetition, tests/kafka_faults/test_owner.py::test_a_commit_that_is_tried_again_does_not_overtake_a_newer_one |
| the coordinator is loading, or the connection to it is cut, under a commit | consumers/client_settings.py::DEFAULTS | tests/kafka_faults/test_owner.py::test_a_coordinator_that_is_not_ready_delays_a_commit |
| producer queue full | producers/kafka.py::wait_for_room, consumers/sender.py::Sender | tests/producers/test_kafka.py::test_a_queue_that_stays_full_is_backpressure_after_the_bounded_wait_and_the_rest_ends_as_unknown, tests/consumers/test_letters.py::test_a_full_queue_is_waited_for_without_blocking_the_loop |
| fatal producer error | producers/kafka.py::_broken, producers/kafka.py::take_over | tests/kafka_faults/test_producer.py::test_after_a_fatal_error_the_client_is_rebuilt_and_what_it_had_not_settled_is_sent_again_as_it_was, tests/kafka_faults/test_producer.py::test_what_is_sent_again_keeps_the_order_of_the_sends_and_stands_before_anything_newer, tests/kafka_faults/test_producer.py::test_a_client_that_breaks_again_is_not_rebuilt_without_end_and_what_breaks_it_twice_is_unknown |
| a dead letter or receipt of which nobody knows whether it was written | consumers/sender.py::Sender | tests/consumers/test_letters.py::test_a_letter_of_which_nobody_knows_whether_it_was_written_is_written_again_as_it_is |
| topic missing or deleted | consumers/kafka.py::_look, consumers/refusals.py::topics_refused | tests/kafka_faults/test_owner.py::test_a_topic_that_is_missing_is_named_at_the_start, tests/kafka_faults/test_owner.py::test_a_topic_that_is_deleted_while_it_is_read_is_named, tests/integration/test_failure_modes.py::test_a_missing_topic_stops_the_subscription_by_name_and_a_resume_goes_on_when_it_is_there |
| a source partition without an owner | ops/diagnosis.py::_reading (`partitions_unread`) | tests/ops/test_status.py::test_each_problem_says_its_cause_its_age_its_owner_and_what_to_type |
| topic or group not permitted | consumers/refusals.py::topic_refused, consumers/kafka.py::_message_error | tests/kafka_faults/test_owner.py::test_a_topic_that_may_not_be_read_is_named_at_the_start, tests/kafka_faults/test_owner.py::test_a_topic_that_may_not_be_read_any_more_is_named, tests/kafka_faults/test_owner.py::test_a_group_that_may_not_be_joined_is_told |
| a consumer that will never read again | consumers/kafka.py::_message_error | tests/kafka_faults/test_owner.py::test_a_client_that_breaks_for_good_is_built_anew_and_reads_on |
| offset out of range | consumers/refusals.py::out_of_range | tests/kafka_faults/test_owner.py::test_an_offset_out_of_range_stops_it_and_says_how_many_events_are_gone, tests/integration/test_faults.py::test_records_deleted_before_they_were_read_stop_it_and_are_counted, tests/integration/test_faults.py::test_positions_that_expired_at_the_broker_stop_it_and_nothing_is_delivered_again |
| undecodable bytes | schemas/codec.py::Decoder | tests/integration/test_faults.py::test_bytes_that_nobody_can_read_become_dead_letters_with_the_same_bytes, tests/schemas/test_codec.py::test_a_body_that_lies_is_undecodable_with_its_field, tests/schemas/test_codec.py::test_trailing_bytes_are_undecodable, tests/schemas/test_codec.py::test_random_bytes_never_raise |
| schema id unknown | consumers/awaited_schemas.py::AwaitedSchemas, schemas/registry.py::HttpRegistry | tests/consumers/test_flow_schemas.py::test_the_lane_of_an_unknown_schema_is_held_and_no_other, tests/consumers/test_flow_schemas.py::test_a_schema_that_the_registry_does_not_have_makes_a_dead_letter_with_the_same_bytes_and_the_lane_goes_on, tests/consumers/test_awaited_schemas.py::test_a_schema_that_never_appears_is_missing_after_its_time, tests/schemas/test_registry_http.py::test_an_unknown_id_is_not_asked_for_again_for_30_seconds |
| registry down | consumers/awaited_schemas.py::AwaitedSchemas, schemas/schema_cache.py::SchemaCache | tests/integration/test_faults.py::test_while_the_registry_is_away_known_schemas_flow_and_new_ones_wait, tests/integration/test_faults.py::test_a_worker_starts_and_delivers_while_the_registry_is_away_when_it_knows_the_schemas, tests/consumers/test_awaited_schemas.py::test_the_time_of_a_registry_that_is_away_does_not_count |
| a schema that can kill the decoder, a message that is too large | schemas/codec.py::Decoder | tests/schemas/test_codec.py::test_a_schema_that_can_kill_the_decoder_is_refused_before_decoding, tests/schemas/test_codec.py::test_a_message_over_the_limit_is_refused_unread, tests/schemas/test_codec.py::test_a_large_message_with_a_decimal_on_bytes_is_refused |
| process frozen beyond its session | consumers/runtime.py::_still_member, consumers/kafka.py::_prove, consumers/kafka.py::_polled | tests/kafka_faults/test_runtime.py::test_a_process_in_doubt_asks_with_a_commit_before_it_calls_and_calls_nobody_when_it_is_no_member, tests/kafka_faults/test_owner.py::test_the_first_poll_after_a_long_pause_proves_no_membership_a_commit_does, tests/integration/test_delivery.py::test_a_process_that_was_frozen_past_its_session_learns_that_it_is_no_member_before_it_calls_again, tests/kafka_faults/test_owner.py::test_partitions_lost_to_a_refused_commit_are_read_again_from_what_was_committed |
| disk full for cache or ledger | schemas/schema_cache.py::SchemaCache, ops/ledger/connector.py::LedgerConnector | tests/schemas/test_schema_cache.py::test_a_full_disk_keeps_no_half_of_a_schema_is_said_once_and_nothing_fails, tests/ops/test_ledger_connector.py::test_a_full_disk_stops_the_ledger_and_it_goes_on_when_there_is_room, tests/integration/test_failure_modes.py::test_a_ledger_that_cannot_be_written_stops_alone_and_others_run_on |
| SIGTERM under load | consumers/kafka.py::_drain, ops/commands/run.py::leave | tests/integration/test_delivery.py::test_sigterm_under_load_finishes_what_is_in_flight_and_repeats_nothing, tests/integration/test_delivery.py::test_leaving_takes_longer_than_a_session_and_still_repeats_nothing |
"""  # noqa: E501 - a row is a row

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from confluent_kafka.admin import NewTopic

from ops.ledger.database import open_engine
from tests.conftest import ROOT, Stack
from tests.integration.world import PARTITIONS, World, new_world
from tests.ops.ledgers import address_of
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)
LEDGER = "sqlite:///ledger.db"
NAMED = sorted(set(re.findall(r"[\w/]+\.py::\w+", __doc__ or "")))


@pytest.mark.parametrize("named", NAMED)
def test_what_the_table_names_is_there(named: str) -> None:
    path, name = named.split("::")
    assert re.search(rf"^ *(async def|def|class) {name}\b|^{name} = ", (ROOT / path).read_text(), re.MULTILINE)


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    """A world that keeps a ledger."""
    world = new_world(tmp_path, stack, prefix)
    project = world.folder / "backbone.toml"
    project.write_text(project.read_text().replace("[contexts.test]\n", f'[contexts.test]\nledger = "{LEDGER}"\n'))
    try:
        world.prepare()
        yield world
    finally:
        world.close()


def test_a_missing_topic_stops_the_subscription_by_name_and_a_resume_goes_on_when_it_is_there(world: World) -> None:
    inbox = f"{world.subscription}.inbox"
    world.admin.delete_topics([inbox])[inbox].result(20)
    worker = world.start_worker()
    (line,) = eventually(lambda: worker.said("subscription_stopped"), 40, about="a stop")
    assert f"the topic {inbox} does not exist" in line["reason"]
    world.admin.create_topics([NewTopic(inbox, PARTITIONS, 1)])[inbox].result(20)
    world.backbone("subscription", "resume", world.subscription)
    world.publish(20)
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()
    assert worker.stop() == 0


def test_a_ledger_that_cannot_be_written_stops_alone_and_others_run_on(world: World) -> None:
    worker = world.start_worker("ledger")
    world.publish(20)
    world.wait_until_caught_up()
    engine = open_engine(address_of(world.folder, LEDGER), writes=True)

    def written() -> int:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("receipts"):
                return 0
            return int(connection.execute(sa.text("SELECT count(*) FROM receipts")).scalar_one())

    eventually(lambda: written() >= 20, 40, poll_s=0.2, about="the ledger to have read them")
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE receipts RENAME TO gone"))
    world.publish(60)
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()
    eventually(
        lambda: [one for one in worker.said("connection_stopped") if one["connection"] == "ledger"],
        40, about="the ledger's stop to be said",
    )  # fmt: skip
    assert [one for one in worker.said("subscription_stopped") if one["subscription"] == world.subscription] == []
    engine.dispose()
    assert worker.stop() == 0
