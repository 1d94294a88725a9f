package host

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
)

// Server is the chaincode as a service (CCaaS) by its environment:
//
//	CHAINCODE_ID              the package's id, as the peer knows it
//	CHAINCODE_SERVER_ADDRESS  where to listen, address:port
//	CHAINCODE_TLS_CERT        the service's certificate, a file in PEM
//	CHAINCODE_TLS_KEY         its key, a file in PEM
//	CHAINCODE_TLS_CLIENT_CA   the CA of the peers that may connect, a file in PEM
//	CHAINCODE_TLS             off: none of these three; only on a loopback address
//	POLICY_SHA256             of the one policy InitPolicy takes, 64 hexadecimal digits
//
// getenv reads it. The error names the variable that is missing or wrong.
func Server(getenv func(string) string) (*shim.ChaincodeServer, error) {
	id, address := getenv("CHAINCODE_ID"), getenv("CHAINCODE_SERVER_ADDRESS")
	if id == "" {
		return nil, fmt.Errorf("CHAINCODE_ID: expected the id of the installed package, got none")
	}
	listen, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("CHAINCODE_SERVER_ADDRESS: expected ADDRESS:PORT: %w", err)
	}
	policy, err := hex.DecodeString(getenv("POLICY_SHA256"))
	if err != nil || len(policy) != 32 {
		return nil, fmt.Errorf("POLICY_SHA256: expected 64 hexadecimal digits, got %q", getenv("POLICY_SHA256"))
	}
	tls, err := tlsProperties(getenv, listen.Addr())
	if err != nil {
		return nil, err
	}
	custody, err := New(policy, time.Now)
	if err != nil {
		return nil, err
	}
	return &shim.ChaincodeServer{CCID: id, Address: address, CC: custody, TLSProps: tls}, nil
}

// tlsProperties is mutual TLS, unless it is off and nobody else can reach the address.
func tlsProperties(getenv func(string) string, listen netip.Addr) (shim.TLSProperties, error) {
	switch wanted := getenv("CHAINCODE_TLS"); {
	case wanted == "off" && listen.IsLoopback():
		return shim.TLSProperties{Disabled: true}, nil
	case wanted != "":
		return shim.TLSProperties{}, fmt.Errorf("CHAINCODE_TLS: expected nothing, or off on loopback, got %q", wanted)
	}
	var files [3][]byte
	for i, name := range []string{"CHAINCODE_TLS_KEY", "CHAINCODE_TLS_CERT", "CHAINCODE_TLS_CLIENT_CA"} {
		if getenv(name) == "" {
			return shim.TLSProperties{}, fmt.Errorf("%s: expected a file in PEM, got none", name)
		}
		content, err := os.ReadFile(getenv(name))
		if err != nil {
			return shim.TLSProperties{}, fmt.Errorf("%s: %w", name, err)
		}
		files[i] = content
	}
	return shim.TLSProperties{Key: files[0], Cert: files[1], ClientCACerts: files[2]}, nil
}
