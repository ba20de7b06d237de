variable "prefix" {
  type        = string
  description = "Prefix of every table and bucket name, as in `<prefix>-accounts`."

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_.-]{0,244}$", var.prefix))
    error_message = "A prefix has 1 to 245 of a-z, A-Z, 0-9, '_', '-' and '.', and starts with a letter or a digit."
  }
}

variable "kms_key_arn" {
  type        = string
  default     = null
  description = "Customer KMS key that encrypts tables and buckets; null = the provider's own keys."
}

variable "create" {
  type        = bool
  default     = true
  description = "Make tables and buckets; otherwise only work out their names, for nodes that make them."
}

variable "destroy_data" {
  type        = string
  default     = null
  description = "The words `destroy all data of PREFIX` let Terraform delete tables, and buckets with what is in them. Apply with them, then destroy."

  validation {
    condition     = var.destroy_data == null || var.destroy_data == "destroy all data of ${var.prefix}"
    error_message = "To destroy what holds data, say so in these words, with the prefix: destroy all data of example.com"
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

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
