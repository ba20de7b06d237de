# An upgrade: nodes of a new launch template version, one first, which is watched, then the others.
#
# The provider's own `instance_refresh` saves the new version in the group before it starts the
# refresh, and AWS rolls back to what is saved: to the new version once more
# (hashicorp/terraform-provider-aws#34189). So the group keeps the version that it has, AWS saves the
# new one in it when all nodes are replaced, and what starts that and waits for its end is upgrade.sh.

locals {
  # Seconds for which a node that serves counts as new. Until its launch hook is complete, they have
  # not begun.
  warmup = 90
  # In an upgrade the next ones go then. A balancer takes some minutes to know a new node.
  next = var.balancer ? 300 : local.warmup

  refresh = merge(
    {
      AutoRollback = true
      SkipMatching = true
      # New nodes come before old ones go.
      MinHealthyPercentage = 100
      MaxHealthyPercentage = 100 + var.upgrade.at_once_percent
      InstanceWarmup       = local.next
      # The first checkpoint is reached by one node of however many.
      CheckpointPercentages     = var.upgrade.canary_minutes > 0 ? [1, 100] : [100]
      CheckpointDelay           = 60 * var.upgrade.canary_minutes
      ScaleInProtectedInstances = var.upgrade.protected
      StandbyInstances          = var.upgrade.standby
    },
    length(var.rollback_alarms) > 0 ? { AlarmSpecification = { Alarms = var.rollback_alarms } } : {},
  )
}

# What the group is to have when all nodes are replaced.
locals {
  configuration = {
    MixedInstancesPolicy = {
      InstancesDistribution = {
        OnDemandBaseCapacity                = local.distribution.base
        OnDemandPercentageAboveBaseCapacity = local.distribution.on_demand
        OnDemandAllocationStrategy          = local.distribution.on_demand_strategy
        SpotAllocationStrategy              = local.distribution.spot_strategy
      }
      LaunchTemplate = {
        LaunchTemplateSpecification = {
          LaunchTemplateId = aws_launch_template.node.id
          Version          = tostring(aws_launch_template.node.latest_version)
        }
        Overrides = [for type in var.instance_types : { InstanceType = type }]
      }
    }
  }
}

resource "terraform_data" "upgrade" {
  triggers_replace = [aws_launch_template.node.id, aws_launch_template.node.latest_version]

  # What an upgrade is done with, for the next one too: a change here alone starts none.
  input = {
    preferences     = jsonencode(local.refresh)
    failed_launches = var.upgrade.failed_launches
  }

  provisioner "local-exec" {
    command = "sh '${path.module}/upgrade.sh'"

    environment = {
      CIRRUS_REGION          = data.aws_region.this.name
      CIRRUS_GROUP           = aws_autoscaling_group.node.name
      CIRRUS_TEMPLATE        = aws_launch_template.node.id
      CIRRUS_VERSION         = aws_launch_template.node.latest_version
      CIRRUS_CONFIGURATION   = jsonencode(local.configuration)
      CIRRUS_PREFERENCES     = jsonencode(local.refresh)
      CIRRUS_FAILED_LAUNCHES = var.upgrade.failed_launches
      CIRRUS_START           = var.upgrade.start
    }
  }
}
