variable "name" {
  type        = string
  description = "Name of the cluster and prefix of what belongs to it."

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$", var.name))
    error_message = "A name has 1 to 24 of a-z, 0-9 and '-', and neither starts nor ends with '-': load balancers take no more."
  }
}

variable "domains" {
  type        = list(string)
  description = "The XMPP domains that the cluster serves; the first one names it."

  validation {
    condition     = length(var.domains) > 0
    error_message = "At least one domain is needed."
  }
}

variable "prefix" {
  type        = string
  description = "Prefix of the names of tables and buckets."
}

variable "vpc_id" {
  type        = string
  description = "The VPC to run in."
}

variable "subnet_ids" {
  type        = list(string)
  description = "Public subnets in different availability zones."

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "At least one subnet is needed."
  }
}

variable "table_arns" {
  type        = list(string)
  description = "ARNs of the tables that nodes may use."

  validation {
    condition     = length(var.table_arns) > 0 && alltrue([for arn in var.table_arns : !strcontains(arn, "*")])
    error_message = "Name the tables, without wildcards."
  }
}

variable "bucket_arns" {
  type        = list(string)
  description = "ARNs of the buckets that nodes may use."

  validation {
    condition     = length(var.bucket_arns) > 0 && alltrue([for arn in var.bucket_arns : !strcontains(arn, "*")])
    error_message = "Name the buckets, without wildcards."
  }
}

variable "create_storage" {
  type        = bool
  default     = false
  description = "Nodes may create tables and buckets themselves."
}

variable "kms_key_arn" {
  type        = string
  default     = null
  description = "Customer KMS key of tables, buckets and volumes; null = AWS's own keys."
}

variable "secret_arns" {
  type        = list(string)
  default     = []
  description = "Secrets Manager secrets that the configuration refers to."

  validation {
    condition     = alltrue([for arn in var.secret_arns : can(regex("^arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^*]+$", arn))])
    error_message = "Give ARNs of secrets without wildcards: arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME."
  }
}

variable "parameter_arns" {
  type        = list(string)
  default     = []
  description = "Parameters of the Parameter Store that the configuration refers to."

  validation {
    condition     = alltrue([for arn in var.parameter_arns : can(regex("^arn:[a-z-]+:ssm:[a-z0-9-]+:[0-9]{12}:parameter/[^*]+$", arn))])
    error_message = "Give ARNs of parameters without wildcards: arn:aws:ssm:REGION:ACCOUNT:parameter/NAME."
  }
}

variable "object_arns" {
  type        = list(string)
  default     = []
  description = "S3 objects that user-data refers to, such as a configuration file."

  validation {
    condition     = alltrue([for arn in var.object_arns : can(regex("^arn:[a-z-]+:s3:::[^*/]+/[^*]+$", arn))])
    error_message = "Give ARNs of objects without wildcards: arn:aws:s3:::BUCKET/KEY."
  }
}

variable "reference_key_arns" {
  type        = list(string)
  default     = []
  description = "Customer KMS keys of those secrets, parameters and objects: nodes may decrypt with them."

  validation {
    condition     = alltrue([for arn in var.reference_key_arns : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[^*]+$", arn))])
    error_message = "Give ARNs of keys themselves, not of aliases: arn:aws:kms:REGION:ACCOUNT:key/ID."
  }
}

variable "challenge_zone_ids" {
  type        = list(string)
  default     = []
  description = "Route 53 hosted zones in which nodes may answer ACME's DNS-01 challenge."

  validation {
    condition     = alltrue([for id in var.challenge_zone_ids : can(regex("^[A-Z0-9]+$", id))])
    error_message = "A hosted zone id looks like Z0123456789ABCDEFGHIJ."
  }
}

variable "outcome_tags" {
  type        = list(string)
  default     = ["cirrus:boot"]
  description = "Tags that a node may write on nodes of this cluster: the outcome of its boot."

  validation {
    condition     = length(var.outcome_tags) > 0 && !contains(var.outcome_tags, "cirrus:domain") && !anytrue([for key in var.outcome_tags : strcontains(key, "*")])
    error_message = "Name one or more tags, without wildcards; cirrus:domain says whose a node is and cannot be written."
  }
}

variable "image_id" {
  type        = string
  description = "The machine image."

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.image_id))
    error_message = "An image id looks like ami-0123456789abcdef0."
  }
}

variable "instance_types" {
  type        = list(string)
  default     = ["t4g.small", "t4g.medium", "m7g.medium"]
  description = "Instance types to choose from, all of the image's architecture, best first."

  validation {
    condition     = length(var.instance_types) >= 1 && length(var.instance_types) <= 40
    error_message = "Name 1 to 40 instance types."
  }

  validation {
    condition     = length(distinct([for type in var.instance_types : can(regex("^[a-z]+[0-9]+g[a-z]*\\.", type))])) <= 1
    error_message = "One image has one architecture: name Graviton types (as in t4g, m7g) or others, not both."
  }
}

variable "size" {
  type = object({
    min = optional(number, 2)
    max = optional(number, 8)
  })
  default     = {}
  description = "How many nodes there are at least and at most."

  validation {
    condition     = var.size.min >= 0 && var.size.max >= max(var.size.min, 1)
    error_message = "At least 0 nodes, and at most no fewer than at least."
  }
}

variable "spot_percentage" {
  type        = number
  default     = 0
  description = "Share of the nodes above the first that are spot instances, in percent."

  validation {
    condition     = var.spot_percentage >= 0 && var.spot_percentage <= 100
    error_message = "A percentage is 0 to 100."
  }
}

variable "balancer" {
  type        = bool
  default     = true
  description = "Put a network load balancer in front; otherwise clients find nodes by DNS alone."
}

variable "proxy_protocol" {
  type        = bool
  default     = false
  description = "Pass client addresses by PROXY protocol version 2 instead of keeping them in the packets, so that clients in the same VPC reach nodes through the balancer too."
}

variable "replace_unhealthy" {
  type        = bool
  default     = false
  description = "Replace nodes that the balancer finds unhealthy, which cuts their connections; otherwise only those that EC2 or the node itself reports."

  validation {
    condition     = !var.replace_unhealthy || var.balancer
    error_message = "Without a balancer nothing asks for the nodes' health; leave `replace_unhealthy` false."
  }
}

variable "plain_http" {
  type        = bool
  default     = false
  description = "Open port 80, for certificates by the HTTP-01 challenge."
}

variable "sessions_per_node" {
  type        = number
  default     = 20000
  description = "Sessions a node holds before another one is added."

  validation {
    condition     = var.sessions_per_node >= 1
    error_message = "A node holds at least one session."
  }
}

variable "cpu_percent" {
  type        = number
  default     = 60
  description = "Mean CPU use above which a node is added, in percent."

  validation {
    condition     = var.cpu_percent >= 10 && var.cpu_percent <= 95
    error_message = "Scale at 10 to 95 percent."
  }
}

variable "scale_in_minutes" {
  type        = number
  default     = 30
  description = "Minutes for which one node fewer would have been enough before one is taken away."

  validation {
    condition     = contains([5, 10, 15, 20, 30, 45, 60, 90, 120], var.scale_in_minutes)
    error_message = "Wait 5, 10, 15, 20, 30, 45, 60, 90 or 120 minutes."
  }
}

variable "upgrade" {
  type = object({
    start           = optional(bool, true)
    canary_minutes  = optional(number, 15)
    at_once_percent = optional(number, 10)
    failed_launches = optional(number, 3)
    protected       = optional(string, "Refresh")
    standby         = optional(string, "Ignore")
  })
  default     = {}
  description = "How nodes are replaced by those of a new image or other options: whether Terraform starts it; minutes for which the first new node is watched before others follow; percent of the nodes replaced at a time, at least one; launches that may fail before it is rolled back; what is done with nodes protected from scale-in (`Refresh`, `Ignore`, `Wait`) and in standby (`Terminate`, `Ignore`, `Wait`)."

  validation {
    condition     = var.upgrade.canary_minutes >= 0 && var.upgrade.canary_minutes <= 2880 && floor(var.upgrade.canary_minutes) == var.upgrade.canary_minutes
    error_message = "The first new node is watched for 0 to 2880 whole minutes."
  }

  validation {
    condition     = var.upgrade.at_once_percent >= 1 && var.upgrade.at_once_percent <= 100 && floor(var.upgrade.at_once_percent) == var.upgrade.at_once_percent
    error_message = "Replace 1 to 100 percent of the nodes at a time."
  }

  validation {
    condition     = var.upgrade.failed_launches >= 1 && var.upgrade.failed_launches <= 10 && floor(var.upgrade.failed_launches) == var.upgrade.failed_launches
    error_message = "Roll back after 1 to 10 launches that failed."
  }

  validation {
    condition     = contains(["Refresh", "Ignore", "Wait"], var.upgrade.protected) && contains(["Terminate", "Ignore", "Wait"], var.upgrade.standby)
    error_message = "`protected` is Refresh, Ignore or Wait, and `standby` is Terminate, Ignore or Wait."
  }
}

variable "rollback_alarms" {
  type        = list(string)
  default     = []
  description = "Names of CloudWatch alarms that roll an upgrade back when they are raised during it."

  validation {
    condition     = length(var.rollback_alarms) <= 10
    error_message = "Auto Scaling looks at 10 alarms at most."
  }
}

variable "options" {
  type        = map(string)
  default     = {}
  description = "Further `key=value` lines of user-data: an option's path and its value. All user-data stays below 1 KB: more goes into a file that `config` refers to (docs/BOOT.md). No secrets: they can be read in the console."

  validation {
    condition     = alltrue([for key, value in var.options : can(regex("^[a-z0-9_]+(\\.[a-z0-9_]+)*$", key)) && can(regex("^[^\\r\\n]*$", value))])
    error_message = "A key is an option's path, as in registration.enabled, and a value is one line."
  }

  validation {
    condition     = length(setintersection(keys(var.options), ["domain", "domains", "store.prefix"])) == 0
    error_message = "Domains and prefix have variables of their own: `domains`, `prefix`."
  }
}

variable "key_name" {
  type        = string
  default     = null
  description = "EC2 key pair for logging in to nodes; port 22 is not opened for it."
}

variable "alarm_topic_arns" {
  type        = list(string)
  default     = []
  description = "SNS topics that the group's own notifications go to."
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
