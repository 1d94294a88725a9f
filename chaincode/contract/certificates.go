package contract

// Certificates an organisation has taken back: nothing signed with them is accepted from then on.

func revokeCertificate(tx *transaction) (effect, error) {
	key := revokedKey(tx.Caller.Organisation, tx.Args.Text("serial"))
	if tx.has(key) {
		return repeat(key, nil)
	}
	return effect{changes: Map{key: tx.stamp()}}, nil
}

// IsSerial tells whether RevokeCertificate can name a certificate's serial number.
func IsSerial(serial string) bool {
	return isSerial(serial)
}

func isRevoked(state reader, caller Caller) bool {
	return state.has(revokedKey(caller.Organisation, caller.Serial))
}

func revokedKey(organisation, serial string) string {
	return key("revokedCertificate", organisation, serial)
}
