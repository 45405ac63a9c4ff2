//! Numbers of `include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h`, under the header's own names less the prefix that the module
//! says. They are ABI: only ever appended to.
#![expect(missing_docs, reason = "the header is the documentation")]

pub const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
pub const NFNL_MSG_BATCH_END: u16 = 0x11;
pub const NFNL_BATCH_GENID: u16 = 1;
pub const NFNLGRP_NFTABLES: i32 = 7;
/// In a question: objects of every family.
pub const NFPROTO_UNSPEC: u8 = 0;
/// The family of our table: both IPv4 and IPv6.
pub const NFPROTO_INET: u8 = 1;
pub const NFPROTO_IPV4: u8 = 2;
pub const NFPROTO_ARP: u8 = 3;
pub const NFPROTO_NETDEV: u8 = 5;
pub const NFPROTO_BRIDGE: u8 = 7;
pub const NFPROTO_IPV6: u8 = 10;
/// An element of any list (`enum nft_list_attributes`).
pub const LIST_ELEM: u16 = 1;

/// `enum nf_tables_msg_types`, with the subsystem in the high byte as in `nlmsg_type`.
pub mod msg {
    const fn of(message: u16) -> u16 {
        super::NFNL_SUBSYS_NFTABLES << 8 | message
    }
    pub const NEWTABLE: u16 = of(0);
    pub const GETTABLE: u16 = of(1);
    pub const DELTABLE: u16 = of(2);
    pub const NEWCHAIN: u16 = of(3);
    pub const GETCHAIN: u16 = of(4);
    pub const DELCHAIN: u16 = of(5);
    pub const NEWRULE: u16 = of(6);
    pub const GETRULE: u16 = of(7);
    pub const DELRULE: u16 = of(8);
    pub const NEWSET: u16 = of(9);
    pub const GETSET: u16 = of(10);
    pub const DELSET: u16 = of(11);
    pub const NEWSETELEM: u16 = of(12);
    pub const GETSETELEM: u16 = of(13);
    pub const DELSETELEM: u16 = of(14);
    pub const NEWGEN: u16 = of(15);
    pub const GETGEN: u16 = of(16);
    pub const NEWOBJ: u16 = of(18);
    pub const DELOBJ: u16 = of(20);
    pub const NEWFLOWTABLE: u16 = of(22);
    pub const DELFLOWTABLE: u16 = of(24);
    /// 6.3 and newer.
    pub const DESTROYSETELEM: u16 = of(30);
}

/// `NFTA_TABLE_*`
pub mod table {
    pub const NAME: u16 = 1;
    pub const FLAGS: u16 = 2;
    /// `NFT_TABLE_F_DORMANT`
    pub const FLAG_DORMANT: u32 = 1;
    /// `NFT_TABLE_F_OWNER`
    pub const FLAG_OWNER: u32 = 2;
    pub const USE: u16 = 3;
    pub const HANDLE: u16 = 4;
    pub const USERDATA: u16 = 6;
    pub const OWNER: u16 = 7;
}

/// `NFTA_CHAIN_*`, `NFTA_HOOK_*`
pub mod chain {
    pub const TABLE: u16 = 1;
    pub const HANDLE: u16 = 2;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const USE: u16 = 6;
    pub const TYPE: u16 = 7;
    pub const USERDATA: u16 = 12;
    pub const HOOK_HOOKNUM: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
}

/// `NFTA_RULE_*`, `NFTA_EXPR_*` and the references that expressions hold
pub mod rule {
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const HANDLE: u16 = 3;
    pub const EXPRESSIONS: u16 = 4;
    pub const USERDATA: u16 = 7;
    pub const EXPR_NAME: u16 = 1;
    pub const EXPR_DATA: u16 = 2;
    pub const LOOKUP_SET: u16 = 1;
    pub const LOOKUP_SET_ID: u16 = 4;
    pub const DYNSET_SET_NAME: u16 = 1;
    pub const DYNSET_SET_ID: u16 = 2;
    pub const OBJREF_SET_NAME: u16 = 4;
    pub const OBJREF_SET_ID: u16 = 5;
    pub const IMMEDIATE_DATA: u16 = 2;
}

/// What expressions of others' rules are read for: `NFTA_IMMEDIATE_*`, `NFTA_PAYLOAD_*`, `NFTA_META_*`, `NFTA_CMP_*`, `NFTA_BITWISE_*`, `NFTA_CT_*`, and
/// `NFTA_MATCH_*` and `NFTA_TARGET_*`, which carry iptables' extensions
pub mod expression {
    pub const PAYLOAD_BASE: u16 = 2;
    pub const PAYLOAD_OFFSET: u16 = 3;
    pub const PAYLOAD_LEN: u16 = 4;
    /// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`
    pub const NETWORK_HEADER: u32 = 1;
    pub const TRANSPORT_HEADER: u32 = 2;
    pub const META_DREG: u16 = 1;
    pub const META_KEY: u16 = 2;
    pub const CMP_OP: u16 = 2;
    /// `NFT_CMP_EQ`, `NFT_CMP_NEQ`
    pub const EQUAL: u32 = 0;
    pub const DIFFERENT: u32 = 1;
    pub const CMP_DATA: u16 = 3;
    pub const BITWISE_MASK: u16 = 4;
    pub const CT_KEY: u16 = 2;
    /// `NFT_CT_STATE`
    pub const CT_STATE: u32 = 0;
    pub const LOOKUP_SET: u16 = 1;
    pub const LOOKUP_DREG: u16 = 3;
    /// `NFT_REG_VERDICT`
    pub const VERDICT_REGISTER: u32 = 0;
    pub const XT_NAME: u16 = 1;
    pub const XT_INFO: u16 = 3;
}

/// `NFTA_SET_*`, `NFTA_SET_DESC_*`, `NFTA_SET_FIELD_*`
pub mod set {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LEN: u16 = 5;
    pub const DATA_TYPE: u16 = 6;
    pub const DATA_LEN: u16 = 7;
    pub const DESC: u16 = 9;
    pub const ID: u16 = 10;
    pub const TIMEOUT: u16 = 11;
    pub const USERDATA: u16 = 13;
    pub const HANDLE: u16 = 16;
    /// How many elements: kernels since 6.16 say.
    pub const COUNT: u16 = 20;
    pub const DESC_SIZE: u16 = 1;
    pub const DESC_CONCAT: u16 = 2;
    pub const FIELD_LEN: u16 = 1;
}

/// `enum nft_set_flags`
pub mod set_flag {
    pub const ANONYMOUS: u32 = 0x1;
    pub const CONSTANT: u32 = 0x2;
    pub const INTERVAL: u32 = 0x4;
    pub const MAP: u32 = 0x8;
    pub const TIMEOUT: u32 = 0x10;
    pub const EVAL: u32 = 0x20;
    pub const CONCAT: u32 = 0x80;
}

/// `NFTA_SET_ELEM_LIST_*`, `NFTA_SET_ELEM_*`, `NFTA_DATA_*`, `NFTA_VERDICT_*`
pub mod element {
    pub const LIST_TABLE: u16 = 1;
    pub const LIST_SET: u16 = 2;
    pub const LIST_ELEMENTS: u16 = 3;
    pub const LIST_SET_ID: u16 = 4;
    pub const KEY: u16 = 1;
    pub const DATA: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const TIMEOUT: u16 = 4;
    pub const EXPIRATION: u16 = 5;
    pub const USERDATA: u16 = 6;
    pub const KEY_END: u16 = 10;
    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
    /// `NFT_SET_ELEM_INTERVAL_END`
    pub const FLAG_INTERVAL_END: u32 = 0x1;
}

/// `NFTA_GEN_*`
pub mod generation {
    pub const ID: u16 = 1;
    pub const PROC_PID: u16 = 2;
    pub const PROC_NAME: u16 = 3;
}

/// `NFT_DATA_VERDICT`: the type of a verdict map's data, in `NFTA_SET_DATA_TYPE`.
pub const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
