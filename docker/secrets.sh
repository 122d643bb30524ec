#!/bin/sh
# Makes the secrets of docker-compose.yml in docker/secrets/, or the folder that is named: the
# database's password and address, a key of the API, Grafana's password. What is there stays.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder" # others are kept out here: the files must be readable by the containers' users
cd "$folder"

random() {
    head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

# Two hold the same password: one cannot be made to fit the other.
if [ ! -e postgres_password ] && [ ! -e dtn_database_url ]; then
    password=$(random)
    printf '%s' "$password" >postgres_password
    printf 'postgresql://dtn:%s@db/dtn' "$password" >dtn_database_url
fi
for name in postgres_password dtn_database_url; do
    if [ ! -e "$name" ]; then
        echo "$folder/$name is missing: put back what it was, or remove the other of the two" >&2
        exit 1
    fi
done
[ -e dtn_api_keys ] || random >dtn_api_keys
[ -e grafana_password ] || random >grafana_password
chmod 444 postgres_password dtn_database_url dtn_api_keys grafana_password
