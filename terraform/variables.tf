variable "domain" {
  type        = string
  description = "The XMPP domain, as in user@example.com."

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$", var.domain))
    error_message = "Give a domain in lower case, as in example.com."
  }
}

variable "more_domains" {
  type        = list(string)
  default     = []
  description = "Further domains that the same cluster serves."

  validation {
    condition     = alltrue([for domain in var.more_domains : can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$", domain))])
    error_message = "Give domains in lower case, as in example.org."
  }

  validation {
    condition     = length(distinct(concat([var.domain], var.more_domains))) == length(var.more_domains) + 1
    error_message = "Name each domain once; `domain` is one of them already."
  }
}

variable "name" {
  type        = string
  default     = null
  description = "Name of the cluster, up to 24 of a-z, 0-9 and `-`; null = made of the domain."

  validation {
    condition     = var.name == null || can(regex("^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$", var.name))
    error_message = "A name has 1 to 24 of a-z, 0-9 and '-', and neither starts nor ends with '-': load balancers take no more."
  }
}

variable "image_id" {
  type        = string
  default     = null
  description = "The machine image; null = the newest one that `image_owner` has."

  validation {
    condition     = var.image_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.image_id))
    error_message = "An image id looks like ami-0123456789abcdef0."
  }
}

variable "image_owner" {
  type        = string
  default     = "self"
  description = "Account that owns the images to choose from; `self` = your own."

  validation {
    condition     = can(regex("^(self|[0-9]{12})$", var.image_owner))
    error_message = "An owner is \"self\" or an account of 12 digits: an image of an unknown owner would see everything."
  }
}

variable "vpc_id" {
  type        = string
  default     = null
  description = "An existing VPC to run in; null = make one."
}

variable "subnet_ids" {
  type        = list(string)
  default     = []
  description = "Public subnets of the existing VPC, in different availability zones."

  validation {
    condition     = (length(var.subnet_ids) > 0) == (var.vpc_id != null)
    error_message = "An existing VPC and its public subnets are given together: `vpc_id` and `subnet_ids`."
  }
}

variable "cidr" {
  type        = string
  default     = "10.64.0.0/16"
  description = "Address range of a VPC that is made; each zone gets a /20 of it."

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && can(regex("/([0-9]|1[0-8])$", var.cidr))
    error_message = "The range must be a valid IPv4 CIDR of /18 or larger."
  }
}

variable "zones" {
  type        = number
  default     = 3
  description = "Availability zones of a VPC that is made: 2 or 3."

  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "A cluster spreads over 2 or 3 availability zones."
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
  description = "How many nodes there are at least and at most. Where `min` is 0 or 1 a node may serve alone and has no copies elsewhere: then there is no alarm `single-copy`."

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
  description = "Pass client addresses by PROXY protocol version 2 instead of keeping them in the packets, so that clients in the same VPC reach nodes through the balancer too. The balancer begins at once and nodes expect it when they are replaced: to change it while clients are there, apply `options = { \"listen.proxy_networks\" = \"…\" }` first, with the networks of the balancer's subnets."
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

variable "zone_ids" {
  type        = map(string)
  default     = {}
  description = "Route 53 hosted zone of each domain whose records shall be made, by domain."

  validation {
    condition     = length(setsubtract(keys(var.zone_ids), concat([var.domain], var.more_domains))) == 0
    error_message = "A hosted zone is given for a domain that the cluster does not serve."
  }
}

variable "addresses" {
  type        = list(string)
  default     = []
  description = "Without a balancer: public addresses of nodes, IPv4 or IPv6, that the domains' records shall name."

  validation {
    condition     = length(var.addresses) == 0 || !var.balancer
    error_message = "With a balancer the records lead to it; leave `addresses` empty."
  }
}

variable "acme_dns" {
  type        = bool
  default     = null
  description = "Let nodes answer ACME's DNS-01 challenge in the hosted zones of `zone_ids`; null = if every domain has one."

  validation {
    condition     = var.acme_dns != true || length(var.zone_ids) > 0
    error_message = "The DNS-01 challenge needs `zone_ids`: the zones that nodes may write to."
  }
}

variable "plain_http" {
  type        = bool
  default     = null
  description = "Open port 80; null = if certificates come by the HTTP-01 challenge, which is without `acme_dns`."
}

variable "storage" {
  type        = string
  default     = "terraform"
  description = "Who makes tables and buckets: `terraform`, or `nodes` when the first one starts."

  validation {
    condition     = contains(["terraform", "nodes"], var.storage)
    error_message = "Storage is made by \"terraform\" or by \"nodes\"."
  }
}

variable "prefix" {
  type        = string
  default     = null
  description = "Prefix of the names of tables and buckets; null = the domain."

  validation {
    condition     = var.prefix == null || can(regex("^[A-Za-z0-9][A-Za-z0-9_.-]{0,244}$", var.prefix))
    error_message = "A prefix has 1 to 245 of a-z, A-Z, 0-9, '_', '-' and '.', and starts with a letter or a digit."
  }
}

variable "kms_key_arn" {
  type        = string
  default     = null
  description = "Customer KMS key for tables, buckets and volumes; null = AWS's own keys. What was written with another one is read with that: name a former key in `reference_key_arns`, before the change."

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "Give the ARN of the key itself, not of an alias: arn:aws:kms:REGION:ACCOUNT:key/ID."
  }
}

variable "point_in_time_recovery" {
  type        = bool
  default     = true
  description = "Keep continuous backups of the tables for 35 days."
}

variable "upload_days" {
  type        = number
  default     = 30
  description = "Days after which uploaded files expire."

  validation {
    condition     = var.upload_days >= 1 && var.upload_days <= 3650 && floor(var.upload_days) == var.upload_days
    error_message = "Uploads are kept for 1 to 3650 whole days."
  }
}

variable "destroy_data" {
  type        = string
  default     = null
  description = "The words `destroy all data of PREFIX` let Terraform delete tables, and buckets with what is in them. Apply with them, then destroy."

  validation {
    condition     = var.destroy_data == null || var.destroy_data == "destroy all data of ${coalesce(var.prefix, var.domain)}"
    error_message = "To destroy what holds data, say so in these words, with the prefix (or else the domain): destroy all data of example.com"
  }
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
    error_message = "Domains and prefix have variables of their own: `domain`, `more_domains`, `prefix`."
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
  description = "SNS topics that alarms go to."

  validation {
    condition     = alltrue([for arn in var.alarm_topic_arns : can(regex("^arn:[a-z-]+:sns:", arn))])
    error_message = "Give ARNs of SNS topics: arn:aws:sns:REGION:ACCOUNT:NAME."
  }
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
