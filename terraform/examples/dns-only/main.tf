# No load balancer: SRV records lead to xmpp.example.com, and that to the nodes' own addresses.

provider "aws" {
  region = "eu-west-1"
}

variable "zone_id" {
  type        = string
  description = "The Route 53 hosted zone of example.com."
}

variable "addresses" {
  type        = list(string)
  default     = []
  description = "Public addresses of the nodes, once they are there."
}

module "cirrus" {
  source    = "../.."
  domain    = "example.com"
  balancer  = false
  zone_ids  = { "example.com" = var.zone_id }
  addresses = var.addresses
}

output "dns_records" {
  description = "Every DNS record; those of example.com's hosted zone are made already."
  value       = module.cirrus.dns_records
}
