use criterion::Criterion;

fn main() {
    hybridnorm_benches::products(&mut Criterion::default().configure_from_args());
}
