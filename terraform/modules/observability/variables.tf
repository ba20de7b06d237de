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
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
