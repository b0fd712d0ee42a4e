import java.io.FileInputStream;
import org.verapdf.gf.foundry.VeraGreenfieldFoundryProvider;
import org.verapdf.pdfa.Foundries;
import org.verapdf.pdfa.flavours.PDFAFlavour;
import org.verapdf.pdfa.results.TestAssertion;

/** Checks a PDF against PDF/A-3a and PDF/UA-1; a line for each of the two, and one for each rule it breaks. */
public final class Check {
  public static void main(String[] files) throws Exception {
    VeraGreenfieldFoundryProvider.initialise();
    var foundry = Foundries.defaultInstance();
    for (String name : new String[] {"3a", "ua1"}) {
      PDFAFlavour flavour = PDFAFlavour.fromString(name);
      try (var parser = foundry.createParser(new FileInputStream(files[0]), flavour);
          var validator = foundry.createValidator(flavour, false)) {
        var result = validator.validate(parser);
        System.out.println(name + " " + result.isCompliant() + " " + result.getTotalAssertions());
        result.getTestAssertions().stream()
            .filter(one -> one.getStatus() == TestAssertion.Status.FAILED)
            .map(one -> "  " + one.getRuleId().getClause() + "-" + one.getRuleId().getTestNumber() + " " + one.getMessage())
            .distinct()
            .forEach(System.out::println);
      }
    }
  }
}
