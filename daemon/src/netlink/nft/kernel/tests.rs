use super::*;
use crate::netlink::message::NLM_F_CREATE;
use crate::netlink::nft::SetSpec;
use crate::netlink::nft::abi::table as tab;
use crate::netlink::testns::in_namespace;

#[test]
fn a_lost_answer_is_an_unknown_outcome_and_the_next_commit_is_none() {
    in_namespace(|| {
        let options = KernelNftOptions { receive_buffer: 4096, force_buffers: false, ..KernelNftOptions::default() };
        let mut door = KernelNft::open_with(options).unwrap();
        door.socket.grow_receive_buffer(4096).unwrap();
        let mut batch = Batch::new();
        // Acknowledgements that nobody should ask for: more than the buffer holds.
        batch.raw("greedy", |buffer, sequence| {
            for _ in 0..1_000 {
                let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
                let start = message::begin(buffer, msg::NEWTABLE, flags, sequence, NFPROTO_INET, 0);
                attr::put_text(buffer, tab::NAME, "t");
                message::end(buffer, start);
            }
        });
        assert_eq!(door.commit(batch), Err(CommitError::Unknown { errno: Errno::ENOBUFS }));
        assert!(door.table_exists("t").unwrap(), "it was committed all the same");
        let mut batch = Batch::new();
        batch.delete_table("t");
        door.commit(batch).unwrap();
    });
}

#[test]
fn probes_are_remembered_and_leave_nothing() {
    in_namespace(|| {
        let mut door = KernelNft::open().unwrap();
        let before = door.generation().unwrap();
        assert_eq!(door.has_destroy(), door.has_destroy());
        assert_eq!(door.generation().unwrap(), before);
        assert!(door.tables().unwrap().is_empty());
        let forced = KernelNft::open_with(KernelNftOptions { probe_end_ack: false, ..KernelNftOptions::default() }).unwrap();
        assert_eq!(forced.ack, AckAt::LastMessage);
        assert_ne!(forced.port_id(), door.port_id());
    });
}

#[test]
fn a_door_stays_in_the_namespace_it_was_opened_in() {
    in_namespace(|| {
        let mut outer = KernelNft::open().unwrap();
        let mut batch = Batch::new();
        batch.add_table("t", None);
        batch.add_set("t", &SetSpec { name: "s".into(), key_len: 4, ..SetSpec::default() });
        outer.commit(batch).unwrap();
        in_namespace(|| {
            assert!(outer.table_exists("t").unwrap());
            assert!(!KernelNft::open().unwrap().table_exists("t").unwrap());
        });
    });
}
