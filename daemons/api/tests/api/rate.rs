//! Limits of how often somebody may ask.

use crate::{
    auth::first_token,
    identity::Provider,
    support::{Replica, Store, ask, wait_until},
};

const HEALTH: &str = "/api/v1/health";

fn nowhere() -> Vec<String> {
    vec![format!("http://127.0.0.1:{}", ports::free(1)[0])]
}

#[test]
fn each_principal_and_each_address_has_its_own_limit() {
    let provider = Provider::new();
    let flags = [provider.flags(), vec!["--limits-rate".to_owned(), "1/5".to_owned()]].concat();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let replica = Replica::spawn("a", &nowhere(), &flags);
    let get = |who: &str| replica.ask("GET", HEALTH, &[("Authorization", who)], None);
    let (alice, mut claims) = (provider.bearer(&["viewer@*"]), Provider::claims(&["viewer@*"]));
    claims["sub"] = serde_json::json!("bob");
    let bob = format!("Bearer {}", provider.token(&claims));
    let first = get(&alice);
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), "\"requests\";q=5;w=5");
    assert!(first.header("ratelimit").starts_with("\"requests\";r=4;"), "{first:?}");
    let refused = wait_until("a refusal", || Some(get(&alice)).filter(|answer| answer.status == 429));
    assert_eq!(refused.problem(), "rate-limited");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.header("ratelimit").starts_with("\"requests\";r=0;"), "{refused:?}");
    assert_eq!(get(&bob).status, 200);
    // Probes are not counted.
    for _ in 0..20 {
        assert_eq!(ask(replica.port, "GET", "/healthz", &[], None).unwrap().status, 200);
    }
    wait_until("alice's next one", || (get(&alice).status == 200).then_some(()));
    // Whoever fails to log in is stopped.
    wait_until("a refusal", || (get("Bearer nonsense").status == 429).then_some(()));
    // Behind the same address, whoever has what is right is not.
    for n in 0..3 {
        claims["sub"] = serde_json::json!(format!("carol-{n}"));
        let carol = format!("Bearer {}", provider.token(&claims));
        wait_until("a refusal", || (get("Bearer nonsense").status == 429).then_some(()));
        assert_eq!(get(&carol).status, 200);
    }
    // And may again after a while.
    wait_until("a check", || (get("Bearer nonsense").status == 401).then_some(()));
}

#[test]
fn a_token_passes_where_others_fail() {
    let Some(store) = Store::start() else { return };
    let flags = ["--auth-tokens", "true", "--limits-rate", "1/50"];
    let replica = Replica::ready("a", &store, &flags);
    let token = || first_token(&store, replica.data.path());
    let get = |token: &str| replica.ask("GET", HEALTH, &[("Authorization", token)], None);
    let (known, other) = (token(), token());
    assert_eq!(get(&known).status, 200);
    let exhaust = || wait_until("a refusal", || (get("Bearer nct_nonsense").status == 429).then_some(()));
    exhaust();
    assert_eq!(get(&known).status, 200);
    // A change of tokens has it looked at again, which it is worth.
    token();
    exhaust();
    assert_eq!(get(&known).status, 200);
    // So do those that the replica has never seen: it looks at all there are, in a moment.
    let others: Vec<_> = (0..5).map(|_| token()).collect();
    exhaust();
    wait_until("a look", || (get(&other).status == 200).then_some(()));
    exhaust();
    wait_until("a look", || (get(&others[0]).status == 200).then_some(()));
    exhaust();
    for other in &others[1..] {
        assert_eq!(get(other).status, 200);
    }
    // With another secret it is nothing.
    let forged = format!("{}AAAA", &others[0][..others[0].len() - 4]);
    assert!([401, 429].contains(&get(&forged).status));
}
