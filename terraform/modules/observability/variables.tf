variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "domain" {
  type        = string
  description = "First domain of the cluster: the dimension of its metrics."
}

variable "autoscaling_group_name" {
  type        = string
  description = "The autoscaling group to watch."
}

variable "balancer" {
  type        = object({ arn_suffix = string, target_arn_suffix = string })
  default     = null
  description = "The load balancer and the group of its targets to watch; null without one."
}

variable "size" {
  type = object({
    min = optional(number, 2)
    max = optional(number, 8)
  })
  default     = {}
  description = "How many nodes there are at least and at most. Where `min` is 0 or 1 a node may serve alone and has no copies elsewhere: then there is no alarm `single-copy`."
}

variable "table_names" {
  type        = list(string)
  default     = []
  description = "Tables to watch."
}

variable "topic_arns" {
  type        = list(string)
  default     = []
  description = "SNS topics that alarms go to."
}

variable "certificate_days" {
  type        = number
  default     = 14
  description = "Alarm when a certificate has fewer days left."

  validation {
    condition     = var.certificate_days >= 1 && var.certificate_days <= 90
    error_message = "Warn 1 to 90 days before a certificate ends."
  }
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
