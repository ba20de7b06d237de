#!/usr/bin/env python3
"""An emulated AWS for Terraform: moto on a free port of loopback, with what it lacks for our module.

It prints the address on its first line of output and serves until it is killed. There is one image
to choose, as if an image had been built, and the one of Debian's that it is built from; a line
`key …` has the public key of every key pair that is made, which a machine that stands for an
instance lets in. What moto is corrected in, beside that, is said below.
"""

import copy
import datetime
import logging
import sys

from moto.autoscaling import models as autoscaling
from moto.autoscaling import responses as autoscaling_responses
from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend, ec2_backends, launch_templates, security_groups
from moto.s3 import responses as s3_responses
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

REGION = "eu-west-1"
ACCOUNT = "123456789012"


def wrap(owner, name):
    """Replaces a method by the decorated function, which gets the one before as first argument."""
    before = getattr(owner, name)

    def replace(function):
        setattr(owner, name, lambda self, *a, **k: function(before, self, *a, **k))

    return replace


# An empty string is not the absence that AWS answers with.
@wrap(autoscaling.LifecycleHook, "__init__")
def _hook(before, self, *arguments, **named):
    before(self, *arguments, **named)
    self.role_arn = None
    self.notification_target_arn = None


@wrap(autoscaling.FakeScalingPolicy, "__init__")
def _policy(before, self, *arguments, **named):
    before(self, *arguments, **named)
    self.enabled = True
    if not self.predictive_scaling_configuration:
        self.predictive_scaling_configuration = None


# The warm-up time is forgotten.
for action in ("create_auto_scaling_group", "update_auto_scaling_group"):

    @wrap(autoscaling_responses.AutoScalingResponse, action)
    def _group(before, self):
        answer = before(self)
        warmup = self._get_int_param("DefaultInstanceWarmup")
        if warmup is not None:
            groups = self.autoscaling_backend.autoscaling_groups
            groups[self._get_param("AutoScalingGroupName")].default_instance_warmup = warmup
        return answer


# The ARN of a policy has another name in the answer.
@wrap(autoscaling_responses.AutoScalingResponse, "put_scaling_policy")
def _put_policy(before, self):
    return ActionResult({"PolicyARN": before(self).result["PolicyArn"]})


# Instance refreshes are unknown. Here one is under way when it is looked at for the first time; at
# the second look it has succeeded, and the group has what it was to have, as at AWS.
REFRESHES = {}


def _start_refresh(self):
    group = self._get_param("AutoScalingGroupName")
    identifier = f"00000000-0000-0000-0000-{len(REFRESHES):012}"
    REFRESHES[identifier] = {
        "InstanceRefreshId": identifier,
        "AutoScalingGroupName": group,
        "Status": "Pending",
        "StartTime": datetime.datetime.now(datetime.timezone.utc),
        "PercentageComplete": 0,
        "DesiredConfiguration": self._get_param("DesiredConfiguration") or {},
        "Preferences": self._get_param("Preferences") or {},
    }
    return ActionResult({"InstanceRefreshId": identifier})


def _refreshes(self):
    group = self._get_param("AutoScalingGroupName")
    identifiers = self._get_param("InstanceRefreshIds") or list(REFRESHES)
    found = [REFRESHES[it] for it in identifiers if REFRESHES[it]["AutoScalingGroupName"] == group]
    for refresh in found:
        if refresh["Status"] == "Pending":
            refresh["Status"] = "InProgress"
        elif refresh["Status"] == "InProgress":
            refresh.update(Status="Successful", PercentageComplete=100)
            policy = refresh["DesiredConfiguration"].get("MixedInstancesPolicy")
            if policy:
                groups = self.autoscaling_backend.autoscaling_groups
                groups[group].mixed_instances_policy = policy
    return ActionResult({"InstanceRefreshes": copy.deepcopy(found)})


autoscaling_responses.AutoScalingResponse.start_instance_refresh = _start_refresh
autoscaling_responses.AutoScalingResponse.describe_instance_refreshes = _refreshes


# What an update does not name stays as it was. A template that is known by id and name, as moto
# keeps it, is refused by moto.
@wrap(autoscaling.FakeAutoScalingGroup, "update")
def _update(before, self, **named):
    policy = copy.deepcopy(named["mixed_instances_policy"] or self.mixed_instances_policy)
    if policy and not named["launch_config_name"] and not named["launch_template"]:
        specification = policy["LaunchTemplate"]["LaunchTemplateSpecification"]
        if "LaunchTemplateId" in specification:
            specification.pop("LaunchTemplateName", None)
        named["mixed_instances_policy"] = policy
    before(self, **named)


# A rule that names a group of the same account does not tell the account, and its description is
# that of the rule.
def _reference(self):
    group = self.source_group
    if not group:
        return None
    hidden = {"Description"} | ({"UserId"} if group.get("UserId") == self.owner_id else set())
    return {key: value for key, value in group.items() if key not in hidden}


def _description(self):
    return self.ip_range.get("Description") or (self.source_group or {}).get("Description")


security_groups.SecurityGroupRule.referenced_group_info = property(_reference)
security_groups.SecurityGroupRule.description = property(_description)


# Tags of the launch template itself are none of its instances.
@wrap(launch_templates.LaunchTemplateVersion, "__init__")
def _version(before, self, template, number, data, description):
    data = dict(data or {})
    if "TagSpecifications" in data:
        tags = data["TagSpecifications"]
        data["TagSpecifications"] = [t for t in tags if t.get("ResourceType") != "launch-template"]
    before(self, template, number, data, description)


# The root element of this answer has another name.
@wrap(s3_responses.S3Response, "get_bucket_versioning")
def _versioning(before, self):
    status, headers, body = before(self)
    return status, headers, body.replace("GetBucketVersioningResponse", "VersioningConfiguration")


@wrap(EC2Backend, "create_key_pair")
def _key_pair(before, self, *arguments, **named):
    pair = before(self, *arguments, **named)
    key = pair.material_public
    print("key", key.decode() if isinstance(key, bytes) else key, flush=True)
    return pair


def add_images():
    """The image that the module looks for: ours, of the cheapest types' architecture. And
    Debian's."""
    backend = ec2_backends[ACCOUNT][REGION]
    image = backend.register_image(name="cirrus-0.1.0-arm64", description="Cirrus")
    image.architecture = "arm64"
    image.root_device_name = "/dev/xvda"
    image = backend.register_image(name="debian-12-amd64-20261101-1", description="Debian 12")
    image.architecture = "x86_64"
    image.owner_id = "136693071363"
    image.root_device_name = "/dev/xvda"
    image.root_device_type = "ebs"
    image.virtualization_type = "hvm"


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    add_images()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
