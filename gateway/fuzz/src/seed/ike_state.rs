//! Scripts: each of the stories an IKE SA can tell, once as it should be and a few times as it should not.

use crate::ike_state::{Op, encode};
use std::time::Duration;

/// Numbers of exchange types and notifies, as a script has them.
const IKE_AUTH: u8 = 35;
const CREATE_CHILD_SA: u8 = 36;
const INFORMATIONAL: u8 = 37;
const TEMPORARY_FAILURE: u16 = 43;
const CHILD_SA_NOT_FOUND: u16 = 44;

const INIT: Op = Op::Init { drop: None, add: Vec::new() };
const AUTH: Op = Op::Auth { drop: None, add: Vec::new(), honest: true };
const REKEY_CHILD: Op = Op::Command(5);
const REKEY_IKE: Op = Op::Command(4);

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let up = |rest: &[Op]| [&[INIT, AUTH], rest].concat();
    let low = |rekey: &dyn Fn(u8) -> Op, nonce: u8| rekey(nonce);
    let own_child = |nonce| Op::RekeyChild { which: 0, nonce, pfs: false };
    let own_ike = |nonce| Op::RekeyIke { nonce };
    let empty = |exchange, id| Op::Sealed { exchange, id, flags: 0, inside: vec![] };
    let serve = [Op::Read, Op::Grant { nonce: 9 }, Op::Read, Op::Grant { nonce: 9 }];
    let scripts: Vec<(&'static str, Vec<Op>)> = vec![
        ("established", up(&[empty(INFORMATIONAL, 0), Op::DeleteIke])),
        (
            "called",
            [&[Op::Command(0)], &serve[..], &[Op::Command(3), Op::Read, Op::Grant { nonce: 1 }]].concat(),
        ),
        ("called_and_refused", vec![Op::Command(0), Op::Read, Op::Read, Op::Refuse { kind: 24 }]),
        ("called_and_refused_oddly", vec![Op::Command(0), Op::Read, Op::Read, Op::Refuse { kind: 38 }]),
        (
            "auth_wrong",
            vec![
                INIT,
                Op::Auth { drop: None, add: vec![], honest: false },
                Op::Again { which: 1, flip: None },
            ],
        ),
        (
            "auth_without_sa",
            vec![INIT, Op::Auth { drop: Some(2), add: vec![], honest: true }, Op::NewChild { pfs: true }],
        ),
        ("child_before_auth", vec![INIT, Op::NewChild { pfs: false }, AUTH]),
        ("informational_before_auth", vec![INIT, empty(INFORMATIONAL, 0), Op::DeleteIke, AUTH]),
        (
            "new_children",
            up(&[Op::NewChild { pfs: false }, Op::NewChild { pfs: true }, Op::DeleteChild { which: 1 }]),
        ),
        (
            "rekey_child_engine",
            up(&[REKEY_CHILD, Op::Read, Op::Grant { nonce: 7 }, Op::Read, Op::Grant { nonce: 0 }]),
        ),
        (
            "rekey_child_peer",
            up(&[own_child(7), Op::DeleteChild { which: 0 }, Op::Wait(Duration::from_secs(9))]),
        ),
        (
            "rekey_child_low",
            up(&[REKEY_CHILD, Op::Read, low(&own_child, 0), Op::Grant { nonce: 255 }, Op::Read]),
        ),
        (
            "rekey_child_high",
            up(&[REKEY_CHILD, Op::Read, low(&own_child, 255), Op::Grant { nonce: 0 }, Op::Read]),
        ),
        (
            "rekey_child_refused",
            up(&[
                REKEY_CHILD,
                Op::Read,
                own_child(255),
                Op::Refuse { kind: TEMPORARY_FAILURE },
                Op::DeleteChild { which: 0 },
                Op::Wait(Duration::from_secs(30)),
            ]),
        ),
        (
            "rekey_child_not_found",
            up(&[
                REKEY_CHILD,
                Op::Read,
                Op::DeleteChild { which: 0 },
                Op::Refuse { kind: CHILD_SA_NOT_FOUND },
                Op::Read,
            ]),
        ),
        (
            "rekey_ike_engine",
            up(&[
                REKEY_IKE,
                Op::Read,
                Op::Grant { nonce: 7 },
                Op::Speak(0),
                Op::Read,
                Op::Grant { nonce: 0 },
            ]),
        ),
        (
            "rekey_ike_peer",
            up(&[own_ike(7), Op::Speak(0), Op::DeleteIke, Op::Speak(0), Op::NewChild { pfs: false }]),
        ),
        (
            "rekey_ike_low",
            up(&[REKEY_IKE, Op::Read, own_ike(0), Op::Grant { nonce: 255 }, Op::Speak(0), Op::Read]),
        ),
        (
            "rekey_ike_high",
            up(&[REKEY_IKE, Op::Read, own_ike(255), Op::Grant { nonce: 0 }, Op::Speak(1), Op::Read]),
        ),
        (
            "rekey_ike_device_late",
            up(&[
                REKEY_IKE,
                Op::Read,
                Op::Hold(true),
                own_ike(9),
                Op::Grant { nonce: 8 },
                Op::TurnJobs,
                Op::Hold(false),
            ]),
        ),
        (
            "rekey_ike_deleted",
            up(&[REKEY_IKE, own_ike(3), Op::Speak(0), Op::DeleteIke, Op::Wait(Duration::from_secs(60))]),
        ),
        (
            "device_fails",
            up(&[Op::Fail(1), own_ike(3), Op::Fail(2), Op::NewChild { pfs: true }, Op::Fail(0), own_ike(4)]),
        ),
        ("init_device_fails", vec![Op::Fail(1), INIT, Op::Fail(2), INIT, Op::Fail(0), INIT, AUTH]),
        (
            "fragments",
            up(&[
                Op::Fragments { size: 0, keep: 0xffff_fffe, inside: vec![] },
                Op::Fragments { size: 20, keep: u32::MAX, inside: vec![] },
            ]),
        ),
        (
            "copies",
            up(&[
                Op::NewChild { pfs: true },
                Op::Again { which: 2, flip: None },
                Op::Again { which: 2, flip: Some(300) },
            ]),
        ),
        (
            "limits",
            up(&[
                Op::Esp { which: 0, signal: 0 },
                Op::Read,
                Op::Grant { nonce: 1 },
                Op::Esp { which: 0, signal: 1 },
                Op::Read,
            ]),
        ),
        ("packet", vec![Op::Esp { which: 0, signal: 0 }, Op::Read, Op::Read, Op::Grant { nonce: 1 }]),
        // Every other peer can have several children with the same selectors.
        ("resources", {
            let asked = |lane: u8| [Op::Esp { which: 0, signal: 4 + lane }, Op::Read, Op::Grant { nonce: 1 }];
            let mut list = vec![INIT, INIT, AUTH];
            list.extend((0..3).flat_map(asked));
            list.extend([
                Op::NewChild { pfs: false },
                Op::NewChild { pfs: true },
                Op::RekeyChild { which: 0, nonce: 5, pfs: false },
                Op::Esp { which: 1, signal: 0 },
                Op::Read,
                Op::Grant { nonce: 7 },
                Op::DeleteChild { which: 0 },
                Op::Read,
                Op::Refuse { kind: 0 },
            ]);
            list
        }),
        ("resources_refused", {
            let asked = |kind| {
                [
                    Op::Esp { which: 0, signal: 5 },
                    Op::Esp { which: 0, signal: 6 },
                    Op::Read,
                    Op::Refuse { kind },
                    Op::Wait(Duration::from_secs(31)),
                ]
            };
            let mut list = vec![INIT, INIT, AUTH];
            list.extend([43, 35, 48].into_iter().flat_map(asked));
            list
        }),
        ("moves", up(&[Op::Move(3), empty(INFORMATIONAL, 0), Op::Esp { which: 0, signal: 3 }])),
        (
            "inside_anything",
            up(&[Op::Sealed {
                exchange: CREATE_CHILD_SA,
                id: 0,
                flags: 0,
                inside: vec![
                    (33, 0, vec![0; 12]),
                    (40, 0, vec![1; 16]),
                    (41, 0, vec![0, 0, 0x40, 9]),
                    (44, 0x80, vec![0; 4]),
                ],
            }]),
        ),
        (
            "ids",
            up(&[
                empty(INFORMATIONAL, 1),
                empty(INFORMATIONAL, -1),
                empty(IKE_AUTH, 0),
                empty(INFORMATIONAL, 0),
            ]),
        ),
        (
            "strangers",
            vec![
                Op::Raw(vec![0x20; 40]),
                Op::Init { drop: Some(1), add: vec![] },
                Op::Init { drop: None, add: vec![(200, 0x80, vec![])] },
            ],
        ),
        (
            "answered_with_anything",
            up(&[REKEY_CHILD, Op::Read, Op::AnswerWith { inside: vec![(41, 0, vec![0, 0, 0, 7])] }]),
        ),
    ];
    scripts.into_iter().map(|(name, ops)| (name, encode(&ops))).collect()
}

#[cfg(test)]
mod tests {
    use crate::ike_state::Op;

    #[test]
    fn scripts_are_read_as_they_were_written() {
        let ops = [
            Op::Raw(vec![1, 2, 3]),
            Op::Init { drop: Some(3), add: vec![(200, 128, vec![9; 5])] },
            Op::Auth { drop: None, add: vec![], honest: true },
            Op::Sealed { exchange: 36, id: -2, flags: 8, inside: vec![(41, 0, vec![])] },
            Op::Again { which: 4, flip: Some(77) },
            Op::Fragments { size: 9, keep: 0xdead_beef, inside: vec![] },
            Op::Wait(std::time::Duration::from_secs(3)),
            Op::Refuse { kind: 44 },
            Op::Hold(true),
            Op::DeleteIke,
        ];
        let octets = crate::ike_state::encode(&ops);
        let mut script = crate::ike_state::Script::new(&octets);
        let read: Vec<Op> = std::iter::from_fn(|| script.next_op()).collect();
        assert_eq!(read, ops);
    }
}
