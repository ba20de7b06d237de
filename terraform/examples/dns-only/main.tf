# No load balancer: clients find the nodes by SRV records that the nodes keep.

provider "aws" {
  region = "eu-west-1"
}

variable "zone_id" {
  type        = string
  description = "The Route 53 hosted zone of example.com."
}

module "cirrus" {
  source   = "../.."
  domain   = "example.com"
  balancer = false
  zone_ids = { "example.com" = var.zone_id }
}
