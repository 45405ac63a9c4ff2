# Stands in for kube-apiserver: takes its flags, looks into the files that they name, and hands over to the API server double.
[ "$1" = --version ] && exec echo Kubernetes v1.36.2

fail() {
  echo "$1" >&2
  exit 1
}

for flag; do
  value=${flag#*=}
  case $flag in
    --bind-address=*) address=$value ;;
    --secure-port=*) port=$value ;;
    --service-cluster-ip-range=*) range=$value ;;
    --tls-cert-file=*) certificate=$value ;;
    --tls-private-key-file=*) key=$value ;;
    --token-auth-file=*) tokens=$value ;;
    --service-account-key-file=* | --service-account-signing-key-file=*)
      grep -q 'PRIVATE KEY' "$value" || fail "$flag holds no key" ;;
    --etcd-servers=http://127.0.0.1:*) etcd=$value ;;
  esac
done
[ -n "$etcd" ] || fail "no --etcd-servers"
IFS=, read -r token user id groups < "$tokens" || fail "no --token-auth-file"
[ "$groups" = '"system:masters"' ] || fail "$user ($id) is of $groups"

exec APISERVER_DOUBLE --listen "$address:$port" --token "$token" --service-cidr "$range" \
  --tls-cert-file "$certificate" --tls-private-key-file "$key"
