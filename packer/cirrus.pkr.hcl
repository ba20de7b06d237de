# The machine image of Cirrus: Debian 12, the two programs, and their units. docs/IMAGE.md has the commands.
#
#   packer build -only='amazon-ebs.*' ...   an AMI, copied to further regions
#   packer build -only='qemu.*' ...         the same as a qcow2 file on this machine

variable "image_version" {
  type        = string
  default     = "0.1.0"
  description = "The version of Cirrus, for names and tags."
}

variable "binaries" {
  type        = string
  default     = "target/release"
  description = "The folder with cirrus-server and cirrus-bootstrap, built for `architecture`."
}

variable "output" {
  type        = string
  default     = "target/image"
  description = "The folder for package list, bill of materials, manifest and the local image."
}

variable "architecture" {
  type        = string
  default     = "amd64"
  description = "`amd64` or `arm64`, as Debian calls them."
}

variable "region" {
  type        = string
  default     = "eu-west-1"
  description = "Where the AMI is built."
}

variable "copy_regions" {
  type        = list(string)
  default     = []
  description = "Regions that get a copy."
}

variable "kms_key_id" {
  type        = string
  default     = ""
  description = "The key that encrypts the AMI's snapshot; empty for the account's default key."
}

variable "deprecation_days" {
  type        = number
  default     = 180
  description = "After so many days the AMI counts as deprecated: its successor is to be used."
}

variable "instance_types" {
  type        = map(string)
  default     = { amd64 = "t3.small", arm64 = "t4g.small" }
  description = "What the AMI is built on."
}

variable "subnet_id" {
  type        = string
  default     = ""
  description = "The subnet to build in; empty for the default VPC."
}

variable "ec2_endpoint" {
  type        = string
  default     = ""
  description = "Another EC2 than the region's, for tests."
}

variable "base_image" {
  type        = string
  default     = "target/image/base.raw"
  description = "The disk that the local image begins with: Debian 12 with cloud-init and sshd."
}

variable "base_key" {
  type        = string
  default     = "target/image/base_key"
  description = "The private key that the user `admin` of the base image accepts."
}

variable "seed" {
  type        = string
  default     = "target/image/seed"
  description = "The folder with meta-data and user-data (NoCloud) that gives `admin` that key."
}

locals {
  built      = timestamp()
  name       = "cirrus-${var.image_version}-${var.architecture}-${formatdate("YYYYMMDD-hhmmss", local.built)}"
  deprecated = "${formatdate("YYYY-MM-DD", timeadd(local.built, "${24 * var.deprecation_days}h"))}T00:00:00Z"
  tags = {
    Name                   = local.name
    "cirrus:version"       = var.image_version
    "cirrus:architecture"  = var.architecture
    "cirrus:built"         = local.built
    "cirrus:deprecated-at" = local.deprecated
  }
}

source "amazon-ebs" "cirrus" {
  region              = var.region
  custom_endpoint_ec2 = var.ec2_endpoint
  instance_type       = var.instance_types[var.architecture]
  subnet_id           = var.subnet_id
  ssh_username        = "admin"
  ami_name            = local.name
  ami_description     = "Cirrus ${var.image_version}, an XMPP service; Debian 12, ${var.architecture}"
  ami_regions         = var.copy_regions
  encrypt_boot        = true
  kms_key_id          = var.kms_key_id
  ena_support         = true
  tags                = local.tags
  snapshot_tags       = local.tags
  run_tags            = { Name = "building ${local.name}" }

  source_ami_filter {
    # Debian's own account.
    owners      = ["136693071363"]
    most_recent = true
    filters = {
      name                = "debian-12-${var.architecture}-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 8
    volume_type           = "gp3"
    throughput            = 125
    iops                  = 3000
    delete_on_termination = true
  }
}

source "qemu" "cirrus" {
  iso_url              = var.base_image
  iso_checksum         = "none"
  disk_image           = true
  skip_resize_disk     = true
  format               = "qcow2"
  disk_interface       = "virtio"
  net_device           = "virtio-net"
  machine_type         = "q35"
  accelerator          = "tcg"
  memory               = 1024
  cpus                 = 2
  headless             = true
  http_directory       = var.seed
  output_directory     = "${var.output}/qemu"
  vm_name              = "cirrus.qcow2"
  ssh_username         = "admin"
  ssh_private_key_file = var.base_key
  ssh_timeout          = "20m"
  boot_wait            = "1s"
  shutdown_command     = "sudo systemctl poweroff"
  qemuargs = [
    ["-cpu", "max"],
    ["-serial", "file:${var.output}/qemu-serial.log"],
    ["-smbios", "type=1,serial=ds=nocloud-net;s=http://10.0.2.2:{{ .HTTPPort }}/"],
  ]
}

build {
  sources = ["source.amazon-ebs.cirrus", "source.qemu.cirrus"]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/cirrus"]
  }

  provisioner "file" {
    sources = [
      "${var.binaries}/cirrus-server",
      "${var.binaries}/cirrus-bootstrap",
      "cloud-init/root",
      "cloud-init/part_handler.py",
      "packer/install.sh",
      "packer/generalise.sh",
      "packer/packages.txt",
      "packer/sbom.py",
      "Cargo.lock",
    ]
    destination = "/tmp/cirrus/"
  }

  provisioner "shell" {
    inline = [
      "sudo sh /tmp/cirrus/install.sh / /tmp/cirrus",
      "dpkg-query --show > /tmp/packages.tsv",
      "python3 /tmp/cirrus/sbom.py /tmp/cirrus/Cargo.lock > /tmp/sbom.cdx.json",
    ]
  }

  provisioner "file" {
    direction   = "download"
    source      = "/tmp/packages.tsv"
    destination = "${var.output}/packages.tsv"
  }

  provisioner "file" {
    direction   = "download"
    source      = "/tmp/sbom.cdx.json"
    destination = "${var.output}/sbom.cdx.json"
  }

  provisioner "shell" {
    inline = [
      "sudo sh /tmp/cirrus/generalise.sh /",
      "sudo rm -rf /tmp/cirrus /tmp/packages.tsv /tmp/sbom.cdx.json",
    ]
  }

  post-processor "manifest" {
    output      = "${var.output}/manifest.json"
    custom_data = { version = var.image_version, deprecated_at = local.deprecated }
  }
}
