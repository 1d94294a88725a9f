package host_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"orthanc-ledger/chaincode/host"
)

const packageID = "custody:0000000000000000000000000000000000000000000000000000000000000000"

// environment is that of a service on a free port of loopback, with mutual TLS.
func environment(t *testing.T, ca authority) map[string]string {
	certificate, key := ca.service()
	return map[string]string{
		"CHAINCODE_ID":             packageID,
		"CHAINCODE_SERVER_ADDRESS": freeAddress(t),
		"CHAINCODE_TLS_CERT":       fileOf(t, certificate),
		"CHAINCODE_TLS_KEY":        fileOf(t, key),
		"CHAINCODE_TLS_CLIENT_CA":  fileOf(t, ca.pem()),
		"POLICY_SHA256":            strings.Repeat("0a", 32),
	}
}

func TestOnlyPeersWithACertificateOfTheCAAreServed(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	address := serve(t, environment(t, ca))
	strangers := []tls.Certificate{pairOf(t, stranger)}
	mutual := &tls.Config{RootCAs: poolOf(ca), Certificates: []tls.Certificate{pairOf(t, ca)}}
	if id, err := registered(t, address, credentials.NewTLS(mutual), true); err != nil || id != packageID {
		t.Errorf("a peer of the CA: expected %s to register, got %q, %v", packageID, id, err)
	}
	for name, refused := range map[string]credentials.TransportCredentials{
		"no certificate":    credentials.NewTLS(&tls.Config{RootCAs: poolOf(ca)}),
		"of another CA":     credentials.NewTLS(&tls.Config{RootCAs: poolOf(ca), Certificates: strangers}),
		"no TLS at all":     insecure.NewCredentials(),
		"another server CA": credentials.NewTLS(&tls.Config{RootCAs: poolOf(stranger), Certificates: mutual.Certificates}),
	} {
		if id, err := registered(t, address, refused, false); err == nil {
			t.Errorf("%s: %s registers", name, id)
		}
	}
}

func TestTLSCanBeOffOnLoopback(t *testing.T) {
	env := environment(t, newAuthority(t))
	for name := range env {
		if strings.HasPrefix(name, "CHAINCODE_TLS") {
			delete(env, name)
		}
	}
	env["CHAINCODE_TLS"] = "off"
	if id, err := registered(t, serve(t, env), insecure.NewCredentials(), true); err != nil || id != packageID {
		t.Errorf("expected %s to register, got %q, %v", packageID, id, err)
	}
}

func TestAServiceThatIsNotWhollyConfiguredDoesNotStart(t *testing.T) {
	complete := environment(t, newAuthority(t))
	for name, change := range map[string]map[string]string{
		"no id":                    {"CHAINCODE_ID": ""},
		"no address":               {"CHAINCODE_SERVER_ADDRESS": ""},
		"a name for an address":    {"CHAINCODE_SERVER_ADDRESS": "localhost:9999"},
		"no port":                  {"CHAINCODE_SERVER_ADDRESS": "127.0.0.1"},
		"no certificate":           {"CHAINCODE_TLS_CERT": ""},
		"no key":                   {"CHAINCODE_TLS_KEY": ""},
		"no client CA":             {"CHAINCODE_TLS_CLIENT_CA": ""},
		"no such file":             {"CHAINCODE_TLS_CLIENT_CA": filepath.Join(t.TempDir(), "none")},
		"TLS neither on nor off":   {"CHAINCODE_TLS": "no"},
		"TLS off for all to reach": {"CHAINCODE_TLS": "off", "CHAINCODE_SERVER_ADDRESS": "0.0.0.0:9999"},
		"no policy":                {"POLICY_SHA256": ""},
		"a short policy":           {"POLICY_SHA256": strings.Repeat("0a", 31)},
		"a policy that is no hex":  {"POLICY_SHA256": strings.Repeat("0x", 32)},
	} {
		_, err := host.Server(func(variable string) string {
			if value, changed := change[variable]; changed {
				return value
			}
			return complete[variable]
		})
		if err == nil {
			t.Errorf("%s: it starts", name)
			continue
		}
		named := false
		for variable := range change {
			named = named || strings.HasPrefix(err.Error(), variable+": ")
		}
		if !named {
			t.Errorf("%s: the error names another variable: %v", name, err)
		}
	}
}

func TestAServiceWhoseFilesAreNoCertificatesDoesNotStart(t *testing.T) {
	for _, variable := range []string{"CHAINCODE_TLS_CERT", "CHAINCODE_TLS_KEY", "CHAINCODE_TLS_CLIENT_CA"} {
		env := environment(t, newAuthority(t))
		env[variable] = fileOf(t, nil)
		server, err := host.Server(func(name string) string { return env[name] })
		if err == nil {
			err = server.Start()
		}
		if err == nil {
			t.Errorf("%s is empty, and it starts", variable)
		}
	}
}

// serve starts a service; it ends with the process. It gives its address.
func serve(t *testing.T, env map[string]string) string {
	t.Helper()
	server, err := host.Server(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	go func() { panic(server.Start()) }() // it serves until the process ends
	return server.Address
}

// registered connects as a peer does, and gives the id that the chaincode registers with. It may wait for the service
// to be there.
func registered(t *testing.T, address string, transport credentials.TransportCredentials, wait bool) (string, error) {
	t.Helper()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(transport))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	deadline, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := peer.NewChaincodeClient(connection).Connect(deadline, grpc.WaitForReady(wait))
	if err != nil {
		return "", err
	}
	message, err := stream.Recv()
	if err != nil {
		return "", err
	}
	id := &peer.ChaincodeID{}
	err = proto.Unmarshal(message.GetPayload(), id)
	return id.GetName(), err
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func fileOf(t *testing.T, content []byte) string {
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func poolOf(ca authority) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.certificate)
	return pool
}

func pairOf(t *testing.T, ca authority) tls.Certificate {
	certificate, key := ca.service()
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
