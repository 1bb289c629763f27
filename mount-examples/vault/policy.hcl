# What Letterlock needs of OpenBao or Vault for one keyring, and no more: bao policy write letterlock-prod policy.hcl
# 'update' without 'create', so that a mistyped key is an error and not a new key.
path "transit/encrypt/prod" {
  capabilities = ["update"]
}

path "transit/decrypt/prod" {
  capabilities = ["update"]
}

# For 'letterlock unlock-with renew', after the key was rotated there.
path "transit/rewrap/prod" {
  capabilities = ["update"]
}
