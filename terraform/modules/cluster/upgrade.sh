#!/bin/sh
# Has an autoscaling group replace its nodes by those of a new launch template version, says how far
# it is, and ends when it is over: with 0 if all nodes are new, else with 1. Terraform runs it
# (upgrade.tf); it needs AWS's command line, and credentials as Terraform's, from the environment.
#
# AWS tries for an hour to get a node into service that does not come up. This takes a few launches
# that were given up as the answer, and has AWS roll back.
set -eu

: "${CIRRUS_REGION:?}" "${CIRRUS_GROUP:?}" "${CIRRUS_TEMPLATE:?}" "${CIRRUS_VERSION:?}"
: "${CIRRUS_CONFIGURATION:?}" "${CIRRUS_PREFERENCES:?}" "${CIRRUS_FAILED_LAUNCHES:?}"
export AWS_PAGER=
start=${CIRRUS_START:-true}
seconds=${CIRRUS_SECONDS:-15}
# Looks at AWS in a row that may go wrong: at 15 s each, 5 minutes.
patience=20

say() { echo "upgrade: $*"; }

fail() {
  say "$*" >&2
  exit 1
}

autoscaling() {
  verb=$1
  shift
  aws autoscaling "$verb" --region "$CIRRUS_REGION" --auto-scaling-group-name "$CIRRUS_GROUP" "$@"
}

# The status of the refresh, how much is done, and why it stands where it stands.
look() {
  autoscaling describe-instance-refreshes --instance-refresh-ids "$refresh" --output text \
    --query 'InstanceRefreshes[0].[Status, PercentageComplete, StatusReason || `""`]'
}

# Launches of new nodes that came to nothing since the beginning, by AWS's clock.
given_up() {
  began=$(autoscaling describe-instance-refreshes --instance-refresh-ids "$refresh" --output text \
    --query 'InstanceRefreshes[0].StartTime') || return 1
  autoscaling describe-scaling-activities --no-paginate --max-records 100 --output text --query \
    "length(Activities[?StartTime>='$began' && starts_with(Description, 'Launching')\
 && (StatusCode=='Failed' || StatusCode=='Cancelled')])"
}

# Takes it back once too many launches came to nothing. Says once that they can't be counted.
roll_back_if_given_up() {
  count=$(given_up 2>&1) || count="no answer: $count"
  case $count in
  '' | *[!0-9]*)
    [ -n "$uncounted" ] || say "launches that fail can't be counted, and don't take it back while that \
is so: $count" >&2
    uncounted=yes
    ;;
  *)
    if [ "$count" -ge "$CIRRUS_FAILED_LAUNCHES" ]; then
      say "$count new nodes did not come up: it is rolled back"
      # AWS may refuse it for a moment: then the next look tries again.
      if autoscaling rollback-instance-refresh >/dev/null; then rolled_back=yes; fi
    fi
    ;;
  esac
}

# A group is made with the first version of its template: it has nothing to replace.
[ "$CIRRUS_VERSION" != 1 ] || exit 0

command -v aws >/dev/null || fail "this needs AWS's command line, aws; nothing was changed in \
$CIRRUS_GROUP. Install it and apply again, or set upgrade = { start = false } to start it elsewhere."

saved=$(aws autoscaling describe-auto-scaling-groups --region "$CIRRUS_REGION" \
  --auto-scaling-group-names "$CIRRUS_GROUP" --output text --query \
  'AutoScalingGroups[0].MixedInstancesPolicy.LaunchTemplate.LaunchTemplateSpecification.[LaunchTemplateId, Version]') ||
  fail "AWS does not say which version $CIRRUS_GROUP has; nothing was changed."
# shellcheck disable=SC2086 # two words
set -- $saved
[ $# -eq 2 ] || fail "AWS knows no group $CIRRUS_GROUP of a launch template; nothing was changed."
if [ "$1 $2" = "$CIRRUS_TEMPLATE $CIRRUS_VERSION" ]; then
  say "$CIRRUS_GROUP has version $CIRRUS_VERSION already"
  exit 0
fi

if [ "$start" != true ]; then
  say "$CIRRUS_GROUP stays at version $2; to replace its nodes by those of version $CIRRUS_VERSION:"
  echo "  aws autoscaling start-instance-refresh --region $CIRRUS_REGION" \
    "--auto-scaling-group-name $CIRRUS_GROUP --preferences '$CIRRUS_PREFERENCES'" \
    "--desired-configuration '$CIRRUS_CONFIGURATION'"
  exit 0
fi

refresh=$(autoscaling start-instance-refresh --preferences "$CIRRUS_PREFERENCES" \
  --desired-configuration "$CIRRUS_CONFIGURATION" --query InstanceRefreshId --output text) ||
  fail "it did not begin; nothing was changed in $CIRRUS_GROUP."
by_hand="aws autoscaling rollback-instance-refresh --region $CIRRUS_REGION --auto-scaling-group-name $CIRRUS_GROUP"
say "$CIRRUS_GROUP goes from version $2 to $CIRRUS_VERSION; to take it back: $by_hand"
trap 'say "it goes on without this; to take it back: $by_hand" >&2; exit 1' INT TERM

before=
rolled_back=
uncounted=
blind=0
while :; do
  if ! now=$(look); then
    blind=$((blind + 1))
    [ "$blind" -lt "$patience" ] || fail "AWS does not say how far it is; it goes on without this."
    sleep "$seconds"
    continue
  fi
  blind=0
  if [ "$now" != "$before" ]; then
    say "$(printf %s "$now" | tr '\t' ' ')"
    before=$now
  fi
  case $now in
  Successful*)
    say "all nodes are of version $CIRRUS_VERSION"
    exit 0
    ;;
  RollbackSuccessful*) fail "it was rolled back: the nodes are of version $2, and so are new ones." ;;
  Failed* | RollbackFailed* | Cancelled*) fail "it has ended with some nodes of either version." ;;
  InProgress*)
    [ -n "$rolled_back" ] || roll_back_if_given_up
    ;;
  esac
  sleep "$seconds"
done
