"""A device comes in by the rule's HTTP action alone: broker, local IoT Core and jitrca, without any subscription."""
import pathlib
import re

import requests

from harness.loop import WEBHOOK_SECRET, Loop
from harness.stack import wait_until


def test_a_device_comes_in_by_the_rules_http_action(cluster, tmp_path):
    bundle = tmp_path / "bundle.pem"
    loop = Loop(cluster, mqtt=False, core={"iotcore_rules_ca_file": bundle})
    loop.target["webhook"]["host"] = f"127.0.0.1:{loop.core.port}"
    with loop:
        bundle.write_bytes(pathlib.Path(loop.stack.ca_bundle).read_bytes())
        url = f"{loop.stack.url}/v1/iot/jitr-events"
        made = loop.api.create_topic_rule_destination(
            destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": url}})["topicRuleDestination"]

        def destination():
            return loop.api.get_topic_rule_destination(arn=made["arn"])["topicRuleDestination"]

        # jitrca confirms by itself what comes from its own account and core.
        wait_until(lambda: destination()["status"] != "IN_PROGRESS", "the confirmation")
        assert destination()["status"] == "ENABLED", (destination()["statusReason"], loop.stack.log_tail(1500))
        loop.api.create_topic_rule(ruleName="jitr", topicRulePayload={
            "sql": "SELECT * FROM '$aws/events/certificates/registered/+'", "actions": [{"http": {
                "url": url, "headers": [{"key": "x-jitrca-webhook-secret", "value": WEBHOOK_SECRET}]}}]})
        loop.enrol("by-rule-1")
        metrics = requests.get(f"{loop.stack.http_url}/metrics", timeout=10).text
        assert re.search(r'jitrca_jitr_events_total\{source="webhook",result="accepted"\} [1-9]', metrics), metrics
        assert WEBHOOK_SECRET not in loop.core.log_tail(10**7)
