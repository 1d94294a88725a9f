package host_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-contract-api-go/v2/contractapi"

	"orthanc-ledger/chaincode/contract"
	"orthanc-ledger/chaincode/host"
	"orthanc-ledger/chaincode/ipld"
)

const (
	nonce  = "00112233445566778899aabbccddeeff"
	person = `{"attrs":{"kind":"person"}}`
	serial = `{"serial":"ab"}`
)

var noon = time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC)

// started is a channel with a policy in force, and the chaincode with its clock at noon.
type started struct {
	*channel
	testing.TB
	cc    shim.Chaincode
	ca    authority
	owner []byte
}

func start(t *testing.T) started {
	policy := ipld.Map{
		"organisations":    ipld.Map{"OwnerMSP": "owner", "CustodianMSP": "custodian"},
		"approvals":        ipld.List{"custodian"},
		"identified_needs": ipld.List{"owner", "custodian"},
		"release_forms":    ipld.List{"identified"},
		"max_days":         int64(365),
		"lease_s":          int64(60),
		"require_stored":   false,
		"erase_grace_s":    int64(0),
		"max_clock_skew_s": int64(30),
		"excluded_origins": ipld.List{},
	}
	digest := sha256.Sum256(ipld.EncodeCBOR(policy))
	s := started{channel: newChannel(), TB: t, ca: newAuthority(t)}
	s.cc = newChaincode(t, digest[:], func() time.Time { return noon })
	s.owner = creatorOf(t, "OwnerMSP", s.ca.client("1", []byte(person)))
	args := string(ipld.EncodeJSON(ipld.Map{"policy": policy}))
	if response, _ := s.submit(s.cc, s.by(s.owner, "InitPolicy", args, nonce)); response.GetStatus() != shim.OK {
		t.Fatal(response.GetMessage())
	}
	return s
}

// by is a proposal at noon.
func (s started) by(creator []byte, args ...string) proposal {
	return proposal{creator: creator, at: noon, args: args}
}

func TestATransactionsTimeMayDifferFromThePeersClockByTheSkewAndNoMore(t *testing.T) {
	s := start(t)
	for _, seconds := range []int{-30, 30} {
		within := s.by(s.owner, "RevokeCertificate", serial, nonce)
		within.at = noon.Add(time.Duration(seconds) * time.Second)
		if response, _ := s.run(s.cc, within, false); response.GetStatus() != shim.OK {
			t.Error(response.GetMessage())
		}
		beyond := within
		beyond.at = noon.Add(time.Duration(seconds+seconds/30) * time.Second)
		response, _ := s.run(s.cc, beyond, false)
		refused(t, response, "SKEW time: ")
	}
}

func TestACertificateWithoutAKindIsRefusedAndCrashesNothing(t *testing.T) {
	s := start(t)
	for name, certificate := range map[string][]byte{
		"another kind":      s.ca.client("2", []byte(`{"attrs":{"kind":"admin"}}`)),
		"kind in capitals":  s.ca.client("2", []byte(`{"attrs":{"kind":"Person"}}`)),
		"no kind":           s.ca.client("2", []byte(`{"attrs":{"role":"person"}}`)),
		"no attributes":     s.ca.client("2", []byte(`{}`)),
		"no extension":      s.ca.client("2", nil),
		"no JSON":           s.ca.client("2", []byte(`person`)),
		"another form":      s.ca.client("2", []byte(`{"attrs":["kind","person"]}`)),
		"too long a serial": s.ca.client("1"+strings.Repeat("0", 40), []byte(person)),
		"no certificate":    inPEM("CERTIFICATE", []byte("no DER")),
		"no PEM":            []byte("no PEM"),
	} {
		t.Run(name, func(t *testing.T) {
			creator := creatorOf(t, "OwnerMSP", certificate)
			response, _ := s.run(s.cc, s.by(creator, "RevokeCertificate", serial, nonce), false)
			refused(t, response, "NOT_PERMITTED certificate")
		})
	}
}

func TestAnIdentityWithoutACertificateIsRefused(t *testing.T) {
	s := start(t)
	idemix := creatorOf(t, "OwnerMSP", nil) // the library takes it for an empty Idemix credential
	response, _ := s.run(s.cc, s.by(idemix, "RevokeCertificate", serial, nonce), false)
	refused(t, response, "NOT_PERMITTED certificate: expected an X.509 certificate")
}

func TestASerialNumberIsLowerCaseHexWithoutLeadingZeros(t *testing.T) {
	s := start(t)
	creator := creatorOf(t, "OwnerMSP", s.ca.client("0ABC000000000000000000000000000000000F", []byte(person)))
	_, stub := s.submit(s.cc, s.by(creator, "RevokeCertificate", serial, nonce))
	record := decoded(t, stub.writes["revokedCertificate/OwnerMSP/ab"]).(ipld.Map)
	if came := record.Map("by").Text("serial"); came != "abc000000000000000000000000000000000f" {
		t.Errorf("got %s", came)
	}
}

func TestASequenceIsTimeInMillisecondsAndTheTransactionsIDAndTimeIsWholeSeconds(t *testing.T) {
	s := start(t)
	p := s.by(s.owner, "RevokeCertificate", serial, nonce)
	p.at, p.txID = noon.Add(1_999_999_999), "fffff"+strings.Repeat("0", 59)
	response, stub := s.submit(s.cc, p)
	expected := (noon.UnixMilli()+1999)<<20 + 0xfffff
	if came := decoded(t, response.GetPayload()).(ipld.Map).Int("sequence"); came != expected {
		t.Errorf("expected %d, got %d", expected, came)
	}
	event := decoded(t, stub.event.GetPayload()).(ipld.Map)
	if event.Int("time") != noon.Unix()+1 || event.Int("sequence") != expected {
		t.Errorf("got %v", event)
	}
}

func TestTwoCommitsNeverShareASequence(t *testing.T) {
	s := start(t)
	first := s.by(s.owner, "RevokeCertificate", serial, nonce)
	second := s.by(s.owner, "RevokeCertificate", `{"serial":"ac"}`, nonce)
	first.txID, second.txID = "aaaaa0"+strings.Repeat("0", 58), "aaaaa1"+strings.Repeat("0", 58)
	s.submit(s.cc, first)
	response, stub := s.submit(s.cc, second)
	refused(t, response, "FAILED sequence")
	if len(stub.writes) > 0 || stub.event != nil {
		t.Error("it writes all the same")
	}
	second.at = second.at.Add(time.Millisecond)
	if response, _ := s.submit(s.cc, second); response.GetStatus() != shim.OK {
		t.Error(response.GetMessage())
	}
}

func TestATimeThatNoSequenceHoldsIsNoRefusal(t *testing.T) {
	s := start(t)
	for _, at := range []time.Time{time.UnixMilli(-1), time.UnixMilli(1 << 43), time.Unix(1<<40, 0)} {
		p := s.by(s.owner, "RevokeCertificate", serial, nonce)
		p.at = at
		response, _ := s.run(s.cc, p, false)
		refused(t, response, "FAILED time")
	}
}

func TestOnlyTheContractsNamesAreTaken(t *testing.T) {
	s := start(t)
	for name, args := range map[string][]string{
		"unknown":               {"Permit", serial, nonce},
		"lower case":            {"revokeCertificate", serial, nonce},
		"in its namespace":      {"Custody:RevokeCertificate", serial, nonce},
		"in another":            {"other:RevokeCertificate", serial, nonce},
		"of the contract API":   {"GetEvaluateTransactions"},
		"of Go":                 {"Contract", serial, nonce},
		"nothing":               {""},
		"no text":               {"\xff", serial, nonce},
		"a query as one":        {"GetPolicy", `{}`, nonce},
		"a function as a query": {"RevokeCertificate", serial},
		"more arguments":        {"RevokeCertificate", serial, nonce, nonce},
	} {
		t.Run(name, func(t *testing.T) {
			response, _ := s.run(s.cc, s.by(s.owner, args...), false)
			refused(t, response, "INVALID function")
		})
	}
	metadata := s.by(s.owner, contractapi.SystemContractName+":GetMetadata")
	if response, _ := s.run(s.cc, metadata, true); !strings.Contains(string(response.GetPayload()), "RevokeCertificate") {
		t.Errorf("no metadata: %s", response.GetMessage())
	}
}

func TestArgumentsHaveOneText(t *testing.T) {
	s := start(t)
	for _, args := range []string{
		``, `{"serial": "ab"}`, `{"serial":"ab","serial":"ab"}`, `{"serial":1.0}`, `[]`, `null`, "{\"serial\":\"\xff\"}",
	} {
		response, _ := s.run(s.cc, s.by(s.owner, "RevokeCertificate", args, nonce), false)
		refused(t, response, "FAILED args")
		response, _ = s.run(s.cc, s.by(s.owner, "GetPolicy", args), true)
		refused(t, response, "FAILED args")
	}
}

func TestWhatIsTooLargeIsRefusedUnreadAndNotToldAgain(t *testing.T) {
	s := start(t)
	const most, marks = 2 << 20, 8192
	huge := strings.Repeat("\x00", most+1)
	for _, args := range [][]string{
		{huge}, {huge, serial, nonce},
		{"RevokeCertificate", huge, nonce}, {"RevokeCertificate", serial, huge}, {"GetPolicy", huge},
		{"GetPolicy", "[" + strings.Repeat("0,", marks)}, {"GetPolicy", strings.Repeat("[", marks+1)},
		{"RevokeCertificate", strings.Repeat(`{"":`, marks+1), nonce},
	} {
		response, _ := s.run(s.cc, s.by(s.owner, args...), true)
		refused(t, response, "INVALID ")
		if message := response.GetMessage(); len(message) > 100 {
			t.Errorf("%d bytes of an answer: %.200s", len(message), message)
		}
	}
	for _, text := range []string{
		`{"unknown":"` + strings.Repeat("x", most-14) + `"}`, `{"unknown":[` + strings.Repeat("0,", marks-2) + `0]}`,
	} {
		response, _ := s.run(s.cc, s.by(s.owner, "GetPolicy", text), true)
		refused(t, response, "INVALID unknown")
	}
}

func TestTheLargestArgumentsThereAreAreTaken(t *testing.T) {
	s := start(t)
	members, certificates := ipld.Map{"OwnerMSP": "owner", "CustodianMSP": "custodian"}, ipld.Map{}
	for len(members) < 256 {
		members[fmt.Sprintf("Lab%061d", len(members))] = "research"
	}
	for name := range members {
		certificates[name] = make([]byte, 4096)
	}
	inForce := decoded(t, s.latest("policy")).(ipld.Map)
	largest := inForce.With(ipld.Map{"organisations": members, "certificates": certificates})
	response, _ := s.run(s.cc, s.by(s.owner, "ProposePolicy", text(ipld.Map{"policy": largest}), nonce), false)
	if response.GetStatus() != shim.OK {
		t.Error(response.GetMessage())
	}
	releases := ipld.List{}
	for n := range 1024 {
		releases = append(releases, fmt.Appendf(nil, "%032d", n))
	}
	run := ipld.Map{"releases": releases, "codeDigest": make([]byte, 32), "dataset": make([]byte, 16), "version": int64(1)}
	response, _ = s.run(s.cc, s.by(s.owner, "RegisterTrainingRun", text(run), nonce), false)
	refused(t, response, "NOT_PERMITTED role")
}

func text(value ipld.Value) string { return string(ipld.EncodeJSON(value)) }

func TestANonceIs32LowerCaseHexadecimalDigits(t *testing.T) {
	s := start(t)
	for _, other := range []string{
		``, nonce[2:], nonce + "00", nonce[1:], strings.ToUpper(nonce), strings.Repeat("x", 32), strings.Repeat("\xff", 32),
	} {
		response, _ := s.run(s.cc, s.by(s.owner, "RevokeCertificate", serial, other), false)
		refused(t, response, "INVALID nonce")
	}
}

func TestEveryFunctionAndQueryIsAMethodAndTheOtherWayRound(t *testing.T) {
	methods := map[string]int{}
	custody, api := reflect.TypeFor[*host.Custody](), reflect.TypeFor[*contractapi.Contract]()
	for i := range custody.NumMethod() {
		method := custody.Method(i)
		if _, inherited := api.MethodByName(method.Name); !inherited && method.Name != "GetEvaluateTransactions" {
			methods[method.Name] = method.Type.NumIn() - 2 // receiver and context
		}
	}
	table := map[string]int{}
	for _, name := range contract.Functions() {
		table[name] = 2
	}
	for _, name := range contract.Queries() {
		table[name] = 1
	}
	if !maps.Equal(methods, table) {
		t.Errorf("methods %v, table %v", methods, table)
	}
}

func TestEveryMethodRunsTheFunctionOfItsName(t *testing.T) {
	s := start(t)
	for _, name := range slices.Concat(contract.Functions(), contract.Queries()) {
		args := []string{name, `{"no such argument":1}`, nonce}
		if isQuery(name) {
			args = args[:2]
		}
		response, _ := s.run(s.cc, s.by(s.owner, args...), isQuery(name))
		refused(t, response, "INVALID no such argument: ")
		if s.reads > 0 {
			t.Errorf("%s reads before the form is checked", name)
		}
	}
}

func TestAStateThatCannotBeReadIsNoRefusal(t *testing.T) {
	s := start(t)
	away := errors.New("the peer went away")
	for _, args := range [][]string{
		{"RevokeCertificate", serial, nonce}, {"Audit", `{}`}, {"HistoryOf", `{"key":"policy"}`},
	} {
		stub := &stub{proposal: s.by(s.owner, args...), channel: s.channel, query: len(args) == 2, failing: away}
		stub.txID = strings.Repeat("0", 64)
		refused(t, s.cc.Invoke(stub), "FAILED state: the peer went away")
	}
}

func TestARecordThatNoFunctionWroteIsNoRefusalAndCrashesNothing(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": `{`, "not canonical": `{ }`, "no record": `[]`, "no policy": `{"organisations":[]}`, "empty": ``,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.rows["policy"][0].value = []byte(text)
			response, _ := s.run(s.cc, s.by(s.owner, "RevokeCertificate", serial, nonce), false)
			refused(t, response, "FAILED state: ")
		})
	}
}

// TestTheStubLetsNoTransactionScan: so the stories show that none does.
func TestTheStubLetsNoTransactionScan(t *testing.T) {
	s := start(t)
	for _, args := range [][]string{{"Audit", `{}`}, {"HistoryOf", `{"key":"policy"}`}} {
		response, _ := s.run(s.cc, s.by(s.owner, args...), false)
		refused(t, response, "FAILED state: "+errScan.Error())
	}
}
