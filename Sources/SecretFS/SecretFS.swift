// SecretFS
