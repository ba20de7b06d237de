# A cluster in a VPC that is there already.

provider "aws" {
  region = "eu-west-1"
}

variable "vpc_id" {
  type        = string
  description = "The VPC."
}

variable "subnet_ids" {
  type        = list(string)
  description = "Its public subnets."
}

module "cirrus" {
  source     = "../.."
  domain     = "example.com"
  vpc_id     = var.vpc_id
  subnet_ids = var.subnet_ids
}

output "dns_records" {
  description = "Every DNS record that is needed."
  value       = module.cirrus.dns_records
}
