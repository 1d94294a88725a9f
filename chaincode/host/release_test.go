package host_test

import (
	"fmt"
	"strings"
	"testing"

	"orthanc-ledger/chaincode/ipld"
)

const mostAnchors = 1024

func TestAReleaseReadsEachAnchorOnce(t *testing.T) {
	release := newRelease(t)
	one, many := release(1), release(mostAnchors)
	if many-one != mostAnchors-1 {
		t.Errorf("a release of one anchor reads %d keys, of %d anchors %d", one, mostAnchors, many)
	}
}

func BenchmarkAReleaseOfManyAnchors(b *testing.B) {
	release := newRelease(b)
	for b.Loop() {
		release(mostAnchors)
	}
}

// newRelease is a release of that many anchors by the rest of a story's first one, on the ledger as it is there with
// copies of its anchor. It tells how many keys were read.
func newRelease(t testing.TB) func(anchors int) int {
	teller := newTeller(t)
	told := teller.stories["a release is a lease, and a repeat shows the lease it had"]
	ledger, step := teller.told(told.Start), told.Steps[0]
	anchor := step.Args.Map().List("anchors")[0].(string)
	record := decoded(t, ledger.latest("anchor/"+anchor)).(ipld.Map)
	cids := make(ipld.List, mostAnchors)
	for i := range cids {
		cid := fmt.Sprintf("bafyrei%s%s", strings.NewReplacer("0", "a", "1", "b").Replace(fmt.Sprintf("%052b", i))[1:], "a")
		copied := ipld.EncodeJSON(record.With(ipld.Map{"manifestCid": cid}))
		ledger.rows["anchor/"+cid] = []modification{{value: copied}}
		cids[i] = cid
	}
	return func(anchors int) int {
		step.Args.Value = step.Args.Map().With(ipld.Map{"anchors": cids[:anchors]})
		before := ledger.channel.copied()
		outcome := teller.take(ledger, step)
		reads := ledger.reads
		ledger.channel = before
		if !outcome.(ipld.Map).Has("result") {
			t.Fatal(outcome)
		}
		return reads
	}
}
