'use strict';

// The published design's operations, one workload each; `operation` in a round's arguments names it. A worker keeps what
// one round made for the next ones: requests to approve, approved requests to check and to release.

const { randomBytes } = require('node:crypto');
const { WorkloadModuleBase } = require('@hyperledger/caliper-core');

const MR_IMAGE = '1.2.840.10008.5.1.4.1.1.4';
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';
const DAY_S = 86400;
const APART = 100; // requests between the custodian and the hospital: people do not approve one at the same moment

const made = { studies: [], open: [], half: [], approved: [] };

/** Bytes as DAG-JSON has them. */
function octets(buffer) {
    return { '/': { bytes: buffer.toString('base64').replace(/=+$/, '') } };
}

/** DAG-JSON: the keys of every object sorted, no white space. */
function text(value) {
    return JSON.stringify(value, (_, item) =>
        item && typeof item === 'object' && !Array.isArray(item)
            ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
            : item);
}

/** A manifest's CID: CIDv1, dag-cbor, sha2-256, base32. */
function manifestCid() {
    let bits = 0, held = 0, digits = 'b';
    for (const octet of Buffer.concat([Buffer.from('01711220', 'hex'), randomBytes(32)])) {
        held = (held << 8) | octet;
        for (bits += 8; bits >= 5; bits -= 5) {
            digits += ALPHABET[(held >> (bits - 5)) & 31];
        }
        held &= (1 << bits) - 1;
    }
    return digits + ALPHABET[(held << (5 - bits)) & 31];
}

/** Takes turns through a list that must not be empty. */
function next(list, what, turn) {
    if (!list.length) {
        throw new Error(`no ${what}: an earlier round must have made some`);
    }
    return list[turn % list.length];
}

const OPERATIONS = {
    upload(workload) {
        const anchored = { manifestCid: manifestCid(), study: randomBytes(16) };
        made.studies.push(anchored);
        const args = { ...anchored, study: octets(anchored.study), root: octets(randomBytes(32)), count: 256, kind: 'original' };
        return workload.transaction('hospital', 'Anchor', args);
    },

    async request(workload, turn) {
        const anchored = { ...next(made.studies, 'study', turn), node: next(workload.nodes, 'node', turn) };
        const args = {
            studies: [octets(anchored.study)], sopClasses: [MR_IMAGE], duo: ['DUO:0000042'], days: 30, node: anchored.node,
            release: 'identified', future: false, descriptionDigest: octets(randomBytes(32)),
        };
        const status = await workload.transaction('research', 'RequestAccess', args);
        if (status.IsCommitted()) {
            made.open.push({ id: JSON.parse(Buffer.from(status.GetResult()).toString()).result.id, ...anchored });
        }
    },

    async approve(workload) {
        const [party, from, to] = made.half.length > APART
            ? ['hospital', made.half, made.approved] : ['custodian', made.open, made.half];
        const request = from.shift();
        if (!request) {
            throw new Error('no open request: the request round must have made more');
        }
        const until = Math.floor(Date.now() / 1000) + 10 * DAY_S;
        const status = await workload.transaction(party, 'Approve', { id: request.id, until, release: 'identified' });
        if (status.IsCommitted()) {
            to.push(request);
        }
    },

    check(workload, turn) {
        const request = next(made.approved, 'approved request', turn);
        return workload.query('hospital', 'CheckAccess', { study: octets(request.study), node: request.node });
    },

    release(workload, turn) {
        const request = next(made.approved, 'approved request', turn);
        return workload.transaction('hospital', 'LogRelease', {
            request: request.id, study: octets(request.study), anchors: [request.manifestCid], instancesRoot: octets(randomBytes(32)),
            count: 256, standingVersion: 0, node: request.node,
        });
    },
};

class Operation extends WorkloadModuleBase {
    async submitTransaction() {
        this.turn = (this.turn ?? -1) + 1;
        await OPERATIONS[this.roundArguments.operation](this, this.turn);
    }

    get nodes() {
        return this.roundArguments.nodes;
    }

    transaction(party, contractFunction, args) {
        return this.send(party, contractFunction, [text(args), randomBytes(16).toString('hex')], false);
    }

    query(party, contractFunction, args) {
        return this.send(party, contractFunction, [text(args)], true);
    }

    send(party, contractFunction, contractArguments, readOnly) {
        const { name, mspId } = this.roundArguments.parties[party];
        return this.sutAdapter.sendRequests({
            contractId: this.roundArguments.contract, contractFunction, contractArguments, readOnly,
            invokerIdentity: name, invokerMspId: mspId,
        });
    }
}

module.exports.createWorkloadModule = () => new Operation();
